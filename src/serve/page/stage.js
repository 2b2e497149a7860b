// The stage: the job at hand with its previews, or a picture of the gallery.
import { $, make, icon, addressOf, download, canvasOf } from "./dom.js";
import { t, duration, language } from "./texts.js";
import * as gallery from "./gallery.js";
import * as jobs from "./jobs.js";

const ZOOM_MAX = 8;
let shownJob = null; // the job on the stage; null: a picture, or nothing
let blob = null; // of the picture on the stage
let zoom = { scale: 1, x: 0, y: 0 };
let isFollowing = true; // the stage shows what is made; until the user looks at something else
let announced = -1;
let actions = {};

export const shownBlob = () => blob;

// ---- the frame --------------------------------------------------------------------------------------------------

function frame(width, height) {
    $("picture").style.setProperty("--width", width);
    $("picture").style.setProperty("--height", height);
    $("empty").hidden = true;
    $("view").hidden = false;
    $("compare").hidden = $("before").hidden = $("split").hidden = true;
    setZoom(1, 0, 0);
}

// Shows the jobs as they come, or stays with what the user chose.
export function follow(value) {
    isFollowing = value;
}

function setUnder(preview) {
    image("under", preview);
    // The blurred preview fades out at its edges: the same preview lies below it.
    $("picture").style.backgroundImage = preview ? `url("${preview}")` : "";
}

export function showEmpty() {
    shownJob = blob = null;
    gallery.setSelected(null);
    $("empty").hidden = false;
    $("view").hidden = true;
}

function image(id, address, alt = "") {
    $(id).hidden = !address;
    $(id).alt = alt;
    if (address) $(id).src = address;
    else $(id).removeAttribute("src");
}

export function showJob(job) {
    const [width, height] = (job.request.size ?? "1x1").split("x").map(Number);
    shownJob = job;
    blob = null;
    gallery.setSelected(null);
    frame(width, height);
    image("over", "");
    setUnder(job.preview);
    $("picture").classList.add("busy");
    $("progress").hidden = false;
    $("caption").hidden = true;
    showProgress(job);
}

// Shows a preview, or where it is to come.
export function showPreview(job) {
    if (job !== shownJob && isFollowing) showJob(job);
    if (job !== shownJob) return;
    setUnder(job.preview);
    $("under").style.setProperty("--blur", `${Math.max(2, 14 * (1 - job.step / (job.steps || 1)))}px`);
}

// known: its file, if it is at hand.
export async function showPicture(picture, known = null) {
    const wasJob = shownJob;
    shownJob = null;
    gallery.setSelected(picture.id);
    const file = known ?? await gallery.fileOf(picture);
    if (gallery.current() !== picture || !file) return;
    blob = file;
    if (!wasJob) setUnder("");
    frame(picture.width, picture.height);
    image("over", addressOf(file), t("result_of", { prompt: picture.request.prompt }));
    $("picture").classList.remove("busy");
    $("progress").hidden = true;
    $("caption").hidden = false;
    showCaption(picture);
}

// ---- words about it ---------------------------------------------------------------------------------------------

export function progressText(job) {
    if (job.state === "queued") {
        const place = job.position > 0 ? t("waiting", { position: job.position }) : t("next");
        return job.eta > 1 ? `${place} · ${t("left", { time: duration(job.eta) })}` : place;
    }
    const parts = [t(`stage_${job.stage ?? "text_encoder"}`, { step: job.step, steps: job.steps })];
    if (job.n > 1) parts.push(t("picture_of", { index: job.index + 1, n: job.n }));
    if (job.eta > 0.5) parts.push(t("left", { time: duration(job.eta) }));
    return parts.join(" · ");
}

function showProgress(job) {
    const percent = Math.round(100 * job.fraction);
    $("bar").setAttribute("aria-valuenow", percent);
    $("bar-fill").style.transform = `scaleX(${job.fraction})`;
    $("progress-text").textContent = progressText(job);
    if (Math.floor(percent / 10) === announced || job.state !== "running") return;
    announced = Math.floor(percent / 10);
    $("live").textContent = t("percent", { n: percent });
}

// The number in the title and the ring in the tab's icon.
function showPercent(job) {
    document.title = job?.state === "running" ? `${Math.round(100 * job.fraction)} % · zimage` : "zimage";
    if (!job) {
        $("favicon").href = "/assets/icon.svg";
        return;
    }
    const canvas = canvasOf(32, 32), context = canvas.getContext("2d");
    context.lineWidth = 5;
    for (const [color, part] of [["#8886", 1], ["#d9571f", job.fraction]]) {
        context.strokeStyle = color;
        context.beginPath();
        context.arc(16, 16, 12, -Math.PI / 2, 2 * Math.PI * part - Math.PI / 2);
        context.stroke();
    }
    $("favicon").href = canvas.toDataURL();
}

function queueItem(job) {
    const bar = make("span", { className: "mini" });
    bar.style.setProperty("--part", job.fraction);
    return make("li", { className: job === shownJob ? "queued shown" : "queued" },
        make("button", { type: "button", className: "queued-open", onclick: () => {
            follow(true);
            showJob(job);
            update();
        } }, bar,
            make("span", { className: "queued-prompt", textContent: job.request.prompt }),
            make("span", { className: "queued-text", textContent: progressText(job) })),
        make("button", { type: "button", className: "plain", title: t("stop"),
            "aria-label": t("remove_job", { prompt: job.request.prompt }), onclick: () => jobs.cancel(job),
        }, icon("close")));
}

// Shows what has changed of a job; undefined: of all.
export function update(job) {
    if (job && job === shownJob && jobs.all().includes(job)) showProgress(job);
    const list = jobs.all().length > 1 || (jobs.all()[0] && jobs.all()[0] !== shownJob) ? jobs.all() : [];
    const held = document.activeElement?.closest(".queued"), index = held && [...$("queue").children].indexOf(held);
    const which = held && [...held.children].indexOf(document.activeElement);
    $("queue").replaceChildren(...list.map(queueItem));
    if (held) $("queue").children[Math.min(index, list.length - 1)]?.children[which]?.focus();
    showPercent(jobs.running());
    if (shownJob && !jobs.all().includes(shownJob)) leaveJob();
}

// The job on the stage is over: its last picture is shown already, or it was stopped.
function leaveJob() {
    const next = jobs.running();
    if (next) showJob(next);
    else if (gallery.current()) showPicture(gallery.current());
    else showEmpty();
}

export const wants = (job) => job === shownJob || isFollowing;

function facts(picture) {
    const parts = [`${picture.width} × ${picture.height}`, `${t("seed")} ${picture.request.seed}`];
    if (picture.request.steps) parts.push(t("steps_of", { n: picture.request.steps }));
    if (picture.request.guidance) parts.push(`${t("guidance").toLowerCase()} ${picture.request.guidance}`);
    if (picture.request.model) parts.push(picture.request.model);
    if (picture.seconds) parts.push(duration(picture.seconds));
    return parts.join("\u00a0· ");
}

const extension = (type) => ({ "image/jpeg": "jpg", "image/webp": "webp" })[type] ?? "png";

export function nameOf(picture) {
    const words = picture.request.prompt.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "");
    return `${words.slice(0, 48) || "zimage"}-${picture.request.seed}.${extension(blob?.type)}`;
}

async function copyPicture() {
    const bitmap = await createImageBitmap(blob);
    const canvas = canvasOf(bitmap.width, bitmap.height);
    canvas.getContext("2d").drawImage(bitmap, 0, 0);
    const png = new Promise((resolve) => { canvas.toBlob(resolve, "image/png"); });
    await navigator.clipboard.write([new ClipboardItem({ "image/png": png })]);
    actions.toast(t("copied"));
}

function sharePicture(picture) {
    const file = new File([blob], nameOf(picture), { type: blob.type });
    return navigator.share({ files: [file], title: picture.request.prompt });
}

function button(name, symbol, run, more = {}) {
    return make("button", { type: "button", className: "plain", id: `do-${name}`, title: t(name), "aria-label": t(name),
        onclick: run, ...more }, icon(symbol), make("span", { className: "word", textContent: t(name) }));
}

function showCaption(picture) {
    $("caption-prompt").textContent = picture.request.prompt;
    $("caption-facts").textContent = facts(picture);
    const list = [
        button("reuse", "reuse", () => actions.reuse(picture)),
        button("other_seed", "dice", () => actions.again(picture, 1)),
        button("two", "two", () => actions.again(picture, 2)),
    ];
    if (actions.canStart())
        list.push(button("as_input", "image", () => actions.startFrom(blob)),
            button("mask_it", "brush", () => actions.repaint(blob)));
    list.push(make("span", { className: "rule" }),
        button("download", "download", () => download(blob, nameOf(picture))));
    if (picture.hasInputs) list.push(button("compare", "compare", () => toggleCompare(picture)));
    if (window.ClipboardItem) list.push(button("copy", "copy", copyPicture));
    if (navigator.canShare?.({ files: [new File([], "a.png", { type: "image/png" })] }))
        list.push(button("share", "share", () => sharePicture(picture)));
    list.push(button("link", "link", () => actions.link(picture)),
        button("star", "star", async () => {
            await gallery.star(picture);
            showCaption(picture);
            $("do-star").focus();
        }, { "aria-pressed": String(Boolean(picture.starred)) }),
        button("delete", "trash", () => gallery.remove([picture])));
    $("actions").replaceChildren(...list);
}

// ---- comparing --------------------------------------------------------------------------------------------------

async function toggleCompare(picture) {
    if (!$("compare").hidden) {
        $("compare").hidden = $("before").hidden = $("split").hidden = true;
        return;
    }
    image("before", addressOf((await gallery.inputsOf(picture)).images[0]));
    $("compare").hidden = $("split").hidden = false;
    $("compare").value = 50;
    moveSplit();
    $("compare").focus();
}

function moveSplit() {
    $("picture").style.setProperty("--split", `${$("compare").value}%`);
}

// ---- zooming ----------------------------------------------------------------------------------------------------

function setZoom(scale, x, y) {
    zoom = scale <= 1.01 ? { scale: 1, x: 0, y: 0 } : { scale: Math.min(scale, ZOOM_MAX), x, y };
    $("picture").style.transform = zoom.scale === 1 ? "" : `translate(${zoom.x}px, ${zoom.y}px) scale(${zoom.scale})`;
    $("canvas").classList.toggle("zoomed", zoom.scale > 1);
}

// Zooms so that what lies under a point stays there.
function zoomAt(factor, clientX, clientY) {
    const box = $("canvas").getBoundingClientRect();
    const x = clientX - box.left - box.width / 2, y = clientY - box.top - box.height / 2;
    const scale = Math.max(1, Math.min(zoom.scale * factor, ZOOM_MAX)), ratio = scale / zoom.scale;
    setZoom(scale, x - (x - zoom.x) * ratio, y - (y - zoom.y) * ratio);
}

function startZooming() {
    const touches = new Map();
    let apart = 0;
    const distance = () => {
        const [a, b] = [...touches.values()];
        return Math.hypot(a.x - b.x, a.y - b.y);
    };
    const canvas = $("canvas");
    canvas.addEventListener("wheel", (event) => {
        event.preventDefault();
        zoomAt(Math.exp(-event.deltaY / 400), event.clientX, event.clientY);
    }, { passive: false });
    canvas.addEventListener("dblclick", (event) =>
        (zoom.scale > 1 ? setZoom(1, 0, 0) : zoomAt(3, event.clientX, event.clientY)));
    canvas.addEventListener("pointerdown", (event) => {
        touches.set(event.pointerId, { x: event.clientX, y: event.clientY });
        if (touches.size === 2) apart = distance();
        if (zoom.scale > 1 || touches.size > 1) canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
        const before = touches.get(event.pointerId);
        if (!before) return;
        touches.set(event.pointerId, { x: event.clientX, y: event.clientY });
        if (touches.size === 2) {
            const [a, b] = [...touches.values()];
            zoomAt(distance() / apart, (a.x + b.x) / 2, (a.y + b.y) / 2);
            apart = distance();
        } else if (zoom.scale > 1)
            setZoom(zoom.scale, zoom.x + event.clientX - before.x, zoom.y + event.clientY - before.y);
    });
    for (const name of ["pointerup", "pointercancel"])
        canvas.addEventListener(name, (event) => touches.delete(event.pointerId));
}

export function start(all) {
    actions = all;
    $("compare").oninput = moveSplit;
    startZooming();
    document.addEventListener("language", () => {
        const picture = gallery.current();
        if (picture && !shownJob) showCaption(picture);
        update(shownJob ?? undefined);
    });
}
