// The page: what its parts do together.
import { $, make, kept } from "./dom.js";
import { t, translate, language, setLanguage, examples, inLanguage } from "./texts.js";
import * as api from "./api.js";
import * as form from "./form.js";
import * as gallery from "./gallery.js";
import * as jobs from "./jobs.js";
import * as mask from "./mask.js";
import * as recipe from "./recipe.js";
import * as stage from "./stage.js";

const TOAST_MILLISECONDS = 6000;
const TYPES = ["image/png", "image/jpeg", "image/webp"];

// ---- saying things ----------------------------------------------------------------------------------------------

function toast(text, action) {
    const element = make("div", { className: "toast" }, make("span", { textContent: text }));
    if (action)
        element.append(make("button", { type: "button", className: "quiet", textContent: action.text, onclick: () => {
            element.remove();
            action.run();
        } }));
    $("toasts").append(element);
    setTimeout(() => element.remove(), TOAST_MILLISECONDS);
}

function fail(error) {
    if (error.name === "AbortError" || error instanceof api.Unreachable) return;
    form.showError(error.message, error.field);
}

// Runs something that may fail, and shows why.
const safely = (run) => async (...values) => {
    try {
        return await run(...values);
    } catch (error) {
        return fail(error);
    }
};

// ---- making -----------------------------------------------------------------------------------------------------

function bodyOf(request, pictures) {
    if (!pictures) return request;
    const body = new FormData();
    for (const [name, value] of Object.entries(request)) body.append(name, String(value));
    for (const blob of pictures.images) body.append("image", blob, "image");
    if (pictures.mask) body.append("mask", pictures.mask, "mask");
    return body;
}

let before = { prompt: "" }; // what was made last: for the arrow up

// pictures: { images, mask } to start from; null: none.
async function submit(request, pictures = null, more = {}) {
    const job = await jobs.submit(request, bodyOf(request, pictures), { ...more, inputs: pictures });
    before = request;
    stage.follow(true);
    kept.set("last_prompt", request.prompt);
    if (jobs.all().length === 1) stage.showJob(job);
    stage.update();
    showButtons();
    form.openSheet(false);
}

const makeOne = safely(async () => {
    const request = form.readRequest();
    if (!request) return;
    await submit(request, await form.readPictures(request));
});

// The same request with new seeds, from the same pictures.
const again = safely(async (picture, n) => {
    const { seed, ...request } = { ...picture.request, n };
    if (!form.modelNames().includes(request.model)) delete request.model;
    await submit(request, await gallery.inputsOf(picture));
});

const stop = safely(async () => {
    const job = jobs.running();
    if (job) await jobs.cancel(job);
});

function showButtons() {
    const isBusy = jobs.all().length > 0;
    $("make-text").textContent = t(isBusy ? "stop" : "make");
    $("make-key").textContent = isBusy ? "Esc" : /Mac|iP/.test(navigator.platform) ? "⌘↵" : "Ctrl ↵";
    $("make").classList.toggle("stopping", isBusy);
    $("enqueue").hidden = !isBusy;
}

// ---- pictures from outside --------------------------------------------------------------------------------------

const startFrom = safely(async (blob) => {
    await form.addInput(blob);
    form.openSheet(true);
    $("field-image").scrollIntoView({ block: "nearest" });
});

const repaint = safely(async (blob) => {
    if (form.startPicture()?.blob !== blob) await form.addInput(blob);
    await mask.edit(blob, form.startPicture().mask, form.setMask);
});

// A recipe made again: its own model, if it is here, its own seed, and no pictures.
const makeAgain = (file) => safely(async (request) => {
    const { model, ...rest } = request;
    await submit({ n: 1, ...rest, ...(form.modelNames().includes(model) ? { model } : {}) }, null,
        { original: file });
});

// A picture that was dropped, pasted or opened. With a recipe it is shown; else it is what to start from.
const takeFile = safely(async (file) => {
    if (!TYPES.includes(file.type)) throw new Error(t("not_a_picture", { name: file.name || file.type || "?" }));
    const found = await recipe.read(file);
    if (found) recipe.show(file, found, { again: makeAgain(file), startFrom: () => startFrom(file) });
    else if (form.canStart()) await startFrom(file);
    else toast(t("recipe_none"));
});

function startDropping() {
    const hasFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
    let depth = 0;
    const show = (by) => {
        depth = Math.max(0, depth + by);
        $("dropping").hidden = depth === 0;
    };
    document.addEventListener("dragenter", (event) => hasFiles(event) && show(1));
    document.addEventListener("dragleave", (event) => hasFiles(event) && show(-1));
    document.addEventListener("dragover", (event) => hasFiles(event) && event.preventDefault());
    document.addEventListener("drop", (event) => {
        if (!hasFiles(event)) return;
        event.preventDefault();
        show(-depth);
        for (const file of event.dataTransfer.files) takeFile(file);
    });
    document.addEventListener("paste", (event) => {
        const files = [...(event.clipboardData?.files ?? [])];
        if (files.length === 0) return;
        event.preventDefault();
        files.forEach(takeFile);
    });
}

// ---- keys -------------------------------------------------------------------------------------------------------

const isTyping = (target) => target.matches("textarea, select, input:not([type=checkbox])");
const press = (id) => $(id)?.offsetParent && $(id).click();

const keys = {
    Escape: stop,
    ArrowLeft: () => gallery.walk(-1),
    ArrowRight: () => gallery.walk(1),
    r: () => press("do-reuse"),
    s: () => press("do-other_seed"),
    m: () => press("do-mask_it"),
    d: () => press("do-download"),
    Delete: () => press("do-delete"),
    g: () => gallery.openAll(),
    "?": () => openHelp(),
};
for (let i = 0; i < 6; i++) keys[i + 1] = () => form.chooseRatio(i);

function onKey(event) {
    if (document.querySelector("dialog[open]")) return;
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
        event.preventDefault();
        makeOne();
        return;
    }
    if (event.target === $("prompt") && event.key === "ArrowUp" && $("prompt").value === "") {
        $("prompt").value = before.prompt || kept.get("last_prompt", "");
        form.changed();
        return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey || (isTyping(event.target) && event.key !== "Escape")) return;
    const run = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!run) return;
    event.preventDefault();
    run();
}

function openHelp() {
    const list = [["Ctrl/⌘ Enter", "key_make"], ["Esc", "key_stop"], ["← →", "key_walk"], ["↑", "key_last"],
        ["1 … 6", "key_sizes"], ["R", "reuse"], ["S", "other_seed"], ["M", "mask_it"],
        ["D", "download"], ["Del", "delete"], ["G", "gallery"], ["?", "key_list"]];
    $("keys").replaceChildren(...list.flatMap(([key, name]) =>
        [make("dt", {}, make("kbd", { textContent: key })), make("dd", { textContent: t(name) })]));
    $("help").showModal();
}

// ---- the server -------------------------------------------------------------------------------------------------

function askForKey(wasWrong) {
    return new Promise((resolve) => {
        $("key-input").value = "";
        $("error-key").textContent = wasWrong ? t("key_wrong") : "";
        $("key").onclose = () => resolve($("key-input").value.trim());
        $("key").showModal();
    });
}

let knocking = 0;

function onReach(isReached) {
    $("banner").hidden = isReached;
    if (isReached) {
        clearTimeout(knocking);
        knocking = 0;
    } else knocking ||= setTimeout(() => {
        knocking = 0;
        fetch("/health").then(() => onReach(true), () => onReach(false));
    }, 2000);
}

// ---- looks ------------------------------------------------------------------------------------------------------

function switchTheme() {
    const root = document.documentElement;
    const isDark = getComputedStyle(root).colorScheme === "dark";
    root.dataset.theme = isDark ? "light" : "dark";
    try {
        localStorage.setItem("zimage.theme", root.dataset.theme);
    } catch { /* until the page is closed */ }
}

function showLanguage() {
    const other = language === "zh" ? ["en", "English", "EN"] : ["zh-Hans", "中文", "中文"];
    Object.assign($("switch-language"), { lang: other[0], textContent: other[2], title: other[1] });
    showExamples();
    showButtons();
}

function showExamples() {
    const list = /emoji/i.test(form.chosenModel()) ? examples.emoji : examples.other;
    const use = (pair) => {
        $("prompt").value = inLanguage(pair);
        form.changed();
        makeOne();
    };
    $("examples").replaceChildren(...list.map((pair) => make("li", {}, make("button",
        { type: "button", className: "example", textContent: inLanguage(pair), onclick: () => use(pair) }))));
}

// ---- beginning --------------------------------------------------------------------------------------------------

const onJob = {
    changed: (job) => {
        stage.update(job);
        showButtons();
    },
    preview: stage.showPreview,
    picture: async (job, picture, blob) => {
        form.showSeed(picture.request.seed);
        if (stage.wants(job)) await stage.showPicture(picture, blob);
        if (job.original) toast(await recipe.compare(job.original, blob));
    },
    failed: (job, error) => {
        stage.update();
        showButtons();
        fail(error.code === "job_not_found" ? new Error(t("lost")) : error);
    },
    finished: (job, warnings) => {
        warnings.forEach((warning) => toast(warning));
        $("live").textContent = t(job.state === "cancelled" ? "cancelled" : "finished");
        form.refreshModels().then(form.changed).catch(() => {});
    },
};

function useHash() {
    const request = recipe.fromHash();
    if (!request) return;
    form.fill(request);
    history.replaceState(null, "", location.pathname);
}

function wire() {
    Object.assign(api.on, { key: askForKey, reach: onReach });
    form.start({ paint: () => repaint(form.startPicture().blob), take: takeFile });
    mask.start({ toast });
    stage.start({ again, repaint, startFrom, toast, canStart: form.canStart,
        reuse: async (picture) => {
            form.fill(picture.request);
            await form.fillPictures(await gallery.inputsOf(picture));
            $("prompt").focus();
        },
        link: async (picture) => {
            await navigator.clipboard?.writeText(recipe.linkTo(picture.request));
            toast(t("copied"));
        } });
    $("panel").addEventListener("submit", (event) => {
        event.preventDefault();
        if (jobs.all().length > 0) stop();
        else makeOne();
    });
    $("enqueue").onclick = makeOne;
    $("model").addEventListener("change", showExamples);
    $("open-gallery").onclick = gallery.openAll;
    $("switch-theme").onclick = switchTheme;
    $("switch-language").onclick = () => setLanguage(language === "zh" ? "en" : "zh");
    $("open-help").onclick = openHelp;
    for (const button of document.querySelectorAll("[data-close]"))
        button.onclick = () => button.closest("dialog").close();
    document.addEventListener("keydown", onKey);
    document.addEventListener("language", showLanguage);
    window.addEventListener("hashchange", useHash);
    window.addEventListener("resize", form.changed);
    startDropping();
}

async function begin() {
    translate();
    wire();
    showLanguage();
    await gallery.start({ select: (picture) => {
        stage.follow(false);
        if (picture) stage.showPicture(picture);
        else stage.showEmpty();
    }, toast });
    for (;;)
        try {
            await form.loadCapabilities();
            break;
        } catch (error) {
            if (!(error instanceof api.Unreachable)) throw error;
            await new Promise((resolve) => { setTimeout(resolve, 2000); });
        }
    if (form.hasGallery()) gallery.join().catch(fail);
    showExamples();
    useHash();
    jobs.start(onJob);
    if (jobs.running()) stage.showJob(jobs.running());
    document.documentElement.dataset.ready = "1";
}

begin().catch(fail);
