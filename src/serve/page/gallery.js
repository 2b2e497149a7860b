// The gallery: a strip of the newest pictures below the stage, and a dialog with all of them. Pictures are the
// browser's; if the server keeps a gallery, those of other browsers are shown, too.
import { $, make, icon, addressOf } from "./dom.js";
import * as api from "./api.js";
import { t } from "./texts.js";
import * as store from "./store.js";

const STRIP_MAX = 60;
const AT_ONCE = 24; // pictures of the server's gallery
let pictures = [];
let selected = null;
let chosen = new Set();
let select = () => {}; // set by start: shows a picture on the stage
let toast = () => {};
let older = null; // the id of the oldest picture that the server has told; "": begin; null: there are no others

const visible = () => pictures.filter((picture) => !picture.deleted);
export const current = () => pictures.find((picture) => picture.id === selected) ?? null;

export function setSelected(id) {
    selected = id;
    for (const item of $("strip").children)
        item.firstChild.setAttribute("aria-current", String(item.firstChild.dataset.id === id));
    $("strip").querySelector("[aria-current=true]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
}

export async function add(id, blob, about, inputs) {
    const known = pictures.find((picture) => picture.id === id);
    if (known) return known;
    let picture;
    try {
        picture = await store.add(id, blob, about, inputs);
    } catch { // no room, or no storage: it lasts as long as the page
        picture = { id, created: Date.now(), thumbnail: blob, file: blob, inputs, ...about };
        picture.hasInputs = Boolean(inputs);
    }
    pictures.unshift(picture);
    show();
    return picture;
}

const onServer = (id) => `gallery/${id}`;

export async function fileOf(picture) {
    const file = picture.file ?? await store.file(picture.id).catch(() => null);
    return file ?? (picture.kept ? api.blob("GET", onServer(picture.kept)) : null);
}

// For good.
async function forget(picture) {
    if (picture.kept) await api.call("DELETE", onServer(picture.kept)).catch(() => {}); // perhaps it is gone already
    await store.erase(picture.id).catch(() => {});
}

// The pictures that it started from: { images, mask }; null: none.
export const inputsOf = async (picture) => (picture.hasInputs ? picture.inputs ?? store.inputs(picture.id) : null);

async function change(picture, values) {
    Object.assign(picture, values);
    if (!picture.file) await store.change(picture);
    show();
}

export const star = (picture) => change(picture, { starred: !picture.starred });

async function restore(list) {
    for (const picture of list) await change(picture, { deleted: 0 });
}

// Puts pictures into the bin; those that are there already are gone for good.
export async function remove(list) {
    const neighbour = neighbourOf(list);
    for (const picture of list)
        if (picture.deleted) {
            pictures = pictures.filter((other) => other !== picture);
            await forget(picture);
        } else await change(picture, { deleted: Date.now() });
    chosen.clear();
    show();
    if (list.some((picture) => picture.id === selected)) select(neighbour);
    if (list[0]?.deleted && pictures.includes(list[0]))
        toast(t("deleted"), { text: t("restore"), run: () => restore(list) });
}

// What is shown when these are gone.
function neighbourOf(list) {
    const all = visible();
    const index = all.findIndex((picture) => list.includes(picture));
    const later = all.slice(index).find((picture) => !list.includes(picture));
    return later ?? all.slice(0, Math.max(0, index)).pop() ?? null;
}

// Goes to an older (1) or a newer (-1) picture.
export function walk(step) {
    const all = visible();
    const index = all.findIndex((picture) => picture.id === selected);
    const next = all[index < 0 ? 0 : index + step];
    if (next) select(next);
}

function thumbnail(picture) {
    return make("img", { src: addressOf(picture.thumbnail), alt: "", loading: "lazy", decoding: "async" });
}

function showStrip() {
    $("strip").replaceChildren(...visible().slice(0, STRIP_MAX).map((picture) => make("div", { role: "listitem" },
        make("button", { type: "button", className: "thumb", "data-id": picture.id, title: picture.request.prompt,
            "aria-label": t("result_of", { prompt: picture.request.prompt }),
            "aria-current": String(picture.id === selected), onclick: () => select(picture) }, thumbnail(picture)))));
    $("strip").hidden = visible().length === 0;
}

function tile(picture) {
    const box = make("input", { type: "checkbox", checked: chosen.has(picture.id), "aria-label":
        `${t("choose")}: ${picture.request.prompt}` });
    box.onchange = () => {
        if (box.checked) chosen.add(picture.id);
        else chosen.delete(picture.id);
        showChosen();
    };
    const open = make("button", { type: "button", className: "thumb", title: picture.request.prompt,
        "aria-label": t("result_of", { prompt: picture.request.prompt }), onclick: () => {
            if (picture.deleted) return restore([picture]);
            $("gallery").close();
            select(picture);
        } }, thumbnail(picture));
    const mark = make("button", { type: "button", className: "plain over-picture star",
        "aria-pressed": String(picture.starred), title: t("star"), onclick: () => star(picture),
        "aria-label": `${t("star")}: ${picture.request.prompt}` }, icon("star"));
    return make("div", { className: "tile", role: "listitem" }, open, box, mark);
}

function showChosen() {
    const isBin = $("which").value === "bin";
    $("delete-chosen").textContent = t(isBin ? "restore_chosen" : "delete_chosen", { n: chosen.size });
    $("delete-chosen").hidden = chosen.size === 0;
}

function showTiles() {
    const words = $("search").value.toLowerCase(), which = $("which").value;
    const list = pictures.filter((picture) => Boolean(picture.deleted) === (which === "bin")
        && (which !== "starred" || picture.starred) && picture.request.prompt.toLowerCase().includes(words));
    $("tiles").replaceChildren(...list.map(tile));
    $("none").hidden = list.length > 0;
    showChosen();
}

export function show() {
    showStrip();
    if ($("gallery").open) showTiles();
}

// ---- the server's gallery ---------------------------------------------------------------------------------------

// "20261129-215656123-abc": the time at which it was made
function timeOf(id) {
    const [, year, month, day, hour, minute, second, rest] =
        /^(\d{4})(\d\d)(\d\d)-(\d\d)(\d\d)(\d\d)(\d{3})/.exec(id);
    return Date.UTC(year, month - 1, day, hour, minute, second, rest);
}

async function takeOne({ id, thumb_url: thumb, format, request }) {
    if (pictures.some((picture) => picture.kept === id)) return;
    const thumbnail = await api.blob("GET", thumb).catch(() => null);
    if (!thumbnail || pictures.some((picture) => picture.kept === id)) return;
    const { width, height } = await createImageBitmap(thumbnail);
    const [w, h] = (request.size ?? `${width}x${height}`).split("x").map(Number);
    const { output_format: made, ...rest } = request;
    pictures.push({ id, kept: id, created: timeOf(id), thumbnail, width: w, height: h, type: `image/${format}`,
        starred: false, deleted: 0, hasInputs: false, index: 0, request: { prompt: "", seed: "?", ...rest } });
}

// The next pictures that the server has.
async function takeOlder() {
    const before = older ? `&before=${older}` : "";
    const { images, has_more: hasMore } = await api.json("GET", `gallery?limit=${AT_ONCE}${before}`);
    await Promise.all(images.map(takeOne));
    older = hasMore ? images.at(-1).id : null;
    pictures.sort(store.newestFirst);
    show();
    $("older").hidden = older === null;
}

export async function join() {
    older = "";
    await takeOlder();
}

export function openAll() {
    chosen.clear();
    $("gallery").showModal();
    showTiles();
}

export async function start(actions) {
    ({ select, toast } = actions);
    $("search").oninput = $("which").onchange = () => {
        chosen.clear();
        showTiles();
    };
    $("delete-chosen").onclick = () => {
        const list = pictures.filter((picture) => chosen.has(picture.id));
        if ($("which").value !== "bin") return remove(list);
        chosen.clear();
        return restore(list);
    };
    $("older").onclick = () => takeOlder().catch((error) => toast(error.message));
    document.addEventListener("language", show);
    pictures = await store.load(forget).catch(() => []);
    show();
}
