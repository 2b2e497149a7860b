// The form: what the next picture shall be. It follows the facts of the chosen model.
import { $, make, icon, debounce, kept, addressOf, blobOf, canvasOf } from "./dom.js";
import { t, duration, memory } from "./texts.js";
import * as api from "./api.js";

const RATIOS = [[1, 1], [4, 3], [3, 2], [16, 9], [3, 4], [9, 16]];
const FIELDS = ["prompt", "negative_prompt", "width", "height", "seed", "n", "steps", "guidance", "strength", "format",
    "quality", "rng", "fit"];
const SEED_MAX = 2n ** 64n - 1n;
// Where a fault's field is shown.
const PLACES = { width: "size", height: "size", mask: "image", images: "image", output_format: "model",
    rng: "model" };

let capabilities = { models: [], limits: {}, formats: [], rngs: [] };
let inputs = []; // { blob, mask, width, height }: start picture or references
let isRandom = true;

export const facts = () => capabilities.models.find((model) => model.id === $("model").value)?.meta ?? {};
export const hasGallery = () => Boolean(capabilities.gallery);
export const modelNames = () => capabilities.models.map((model) => model.id);
export const chosenModel = () => $("model").value;
export const canStart = () => Boolean(facts().can_edit);
const isReferenced = () => facts().max_references > 0;
const mostInputs = () => (isReferenced() ? Math.min(facts().max_references, capabilities.limits.max_images) : 1);

function defaultSize() {
    const [width, height] = (facts().default_size ?? "1024x1024").split("x").map(Number);
    return { width, height };
}

// The nearest size that the model takes.
function snap(side, most) {
    const multiple = facts().size_multiple ?? 16;
    return Math.max(multiple, Math.min(Math.round(side / multiple) * multiple, most - (most % multiple)));
}

function sizeOfRatio([across, down]) {
    const { width, height } = defaultSize();
    const unit = Math.sqrt((width * height) / (across * down));
    return {
        width: snap(across * unit, facts().max_width ?? 2048),
        height: snap(down * unit, facts().max_height ?? 2048),
    };
}

// ---- faults -----------------------------------------------------------------------------------------------------

export function clearErrors() {
    for (const element of document.querySelectorAll(".panel .error")) element.textContent = "";
    for (const element of document.querySelectorAll(".panel [aria-invalid]")) element.removeAttribute("aria-invalid");
}

// Shows a sentence beside its field, or above the button.
export function showError(sentence, field = "") {
    const plain = field.replace(/\[.*/, ""); // "images[0]"
    const name = PLACES[plain] ?? plain;
    const place = $(`error-${name}`) ?? $("error");
    const input = $(name === "size" ? "width" : name);
    place.textContent = sentence;
    if (place.id === "error") return;
    input?.setAttribute("aria-invalid", "true");
    if ($("more").contains(place)) $("more").open = true;
    if ($("settings").contains(place)) openSheet(true);
    input?.focus();
}

// ---- values -----------------------------------------------------------------------------------------------------

function wholeNumber(id, from, to) {
    const text = $(id).value.trim();
    if (/^\d+$/.test(text) && Number(text) >= from && Number(text) <= to) return Number(text);
    showError(t("number_error", { from, to }), id);
    return null;
}

// A seed as JSON has it: a text where JavaScript's numbers are not exact.
const seedValue = (text) => (BigInt(text) <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(text) : text);

// The request without pictures; null: a field is wrong, and says so.
export function readRequest() {
    clearErrors();
    const prompt = $("prompt").value.trim();
    if (!prompt) {
        showError(t("need_prompt"), "prompt");
        return null;
    }
    const width = wholeNumber("width", 1, facts().max_width ?? 16384);
    const height = width && wholeNumber("height", 1, facts().max_height ?? 16384);
    const n = height && wholeNumber("n", 1, capabilities.limits.max_n ?? 10);
    if (!n) return null;
    const request = { prompt, model: chosenModel(), n, size: `${width}x${height}`, steps: Number($("steps").value) };
    const seed = $("seed").value.trim();
    if (!isRandom && seed) {
        if (!/^\d{1,20}$/.test(seed) || BigInt(seed) > SEED_MAX) {
            showError(t("seed_error"), "seed");
            return null;
        }
        request.seed = seedValue(seed);
    }
    if (!facts().distilled) {
        request.guidance = Number($("guidance").value);
        const negative = $("negative_prompt").value.trim();
        if (negative && request.guidance > 0) request.negative_prompt = negative;
    }
    if (inputs.length > 0 && (!isReferenced() || inputs[0].mask)) request.strength = Number($("strength").value);
    if (inputs[0]?.mask && $("composite").checked) request.composite = true;
    if ($("format").value !== "png") {
        request.output_format = $("format").value;
        request.output_compression = Math.max(1, Math.min(100, Number($("quality").value) || 92));
    }
    if ($("rng").value !== capabilities.rngs[0]) request.rng = $("rng").value;
    return request;
}

// Fills the form with a request: of a picture, a recipe, or a link.
export function fill(request) {
    const [width, height] = (request.size ?? "").split("x");
    if (request.model && modelNames().includes(request.model) && request.model !== chosenModel()) {
        $("model").value = request.model;
        followModel();
    }
    for (const name of ["prompt", "negative_prompt", "steps", "guidance", "strength"])
        if (request[name] !== undefined) $(name).value = request[name];
    if (request.composite !== undefined) $("composite").checked = String(request.composite) === "true";
    if (height) {
        $("width").value = width;
        $("height").value = height;
    }
    if (request.seed !== undefined) {
        $("seed").value = request.seed;
        setRandom(false);
    }
    if (capabilities.rngs.includes(request.rng)) $("rng").value = request.rng;
    clearErrors();
    changed();
}

export function setRandom(value) {
    isRandom = value;
    $("random").setAttribute("aria-pressed", String(value));
    if (value) $("seed").value = "";
}

// After a picture: the seed that was drawn, shown without being kept.
export function showSeed(seed) {
    $("seed").placeholder = isRandom ? String(seed) : t("random");
}

// ---- pictures that it starts from -------------------------------------------------------------------------------

export const startPicture = () => inputs[0];

// Draws a picture into a size: as a whole, or with margins where nothing is.
function fitted(source, width, height, mode) {
    const canvas = canvasOf(width, height);
    const context = canvas.getContext("2d");
    const choose = mode === "crop" ? Math.max : Math.min;
    const scale = choose(width / source.width, height / source.height);
    const across = source.width * scale, down = source.height * scale;
    context.imageSmoothingQuality = "high";
    context.drawImage(source, (width - across) / 2, (height - down) / 2, across, down);
    return canvas;
}

// A mask that keeps everything.
function opaque(width, height) {
    const canvas = canvasOf(width, height);
    canvas.getContext("2d").fillRect(0, 0, width, height);
    return canvas;
}

// What is sent of the first picture and its mask. New margins are transparent in the mask: they are painted.
async function prepared(input, width, height) {
    const mode = $("fit").value;
    if (mode === "own") return { image: input.blob, mask: input.mask };
    const bitmap = await createImageBitmap(input.blob);
    const image = await blobOf(fitted(bitmap, width, height, mode));
    if (mode === "crop" && !input.mask) return { image };
    const source = input.mask ? await createImageBitmap(input.mask) : opaque(bitmap.width, bitmap.height);
    return { image, mask: await blobOf(fitted(source, width, height, mode)) };
}

// The pictures of the form as they are sent: { images, mask }; null: none.
export async function readPictures(request) {
    if (inputs.length === 0) return null;
    const [width, height] = request.size.split("x").map(Number);
    const first = await prepared(inputs[0], width, height);
    return { images: [first.image, ...inputs.slice(1).map((input) => input.blob)], mask: first.mask ?? null };
}

// Puts pictures into the form; null: none.
export async function fillPictures(pictures) {
    inputs = [];
    if (canStart())
        for (const blob of pictures?.images.slice(0, mostInputs()) ?? []) {
            const { width, height } = await createImageBitmap(blob);
            inputs.push({ blob, width, height, mask: inputs.length === 0 ? pictures.mask : null });
        }
    if (inputs.length > 0) $("fit").value = "own";
    showInputs();
    changed();
}

export async function addInput(blob) {
    if (!canStart()) throw new Error(t("cant_start"));
    if (isReferenced() && inputs.length >= mostInputs()) throw new Error(t("too_many", { n: mostInputs() }));
    const bitmap = await createImageBitmap(blob);
    const input = { blob, mask: null, width: bitmap.width, height: bitmap.height };
    inputs = isReferenced() ? [...inputs, input] : [input];
    if (inputs.length === 1) {
        const { max_width: across = 2048, max_height: down = 2048 } = facts();
        const scale = Math.min(1, across / input.width, down / input.height);
        $("width").value = snap(input.width * scale, across);
        $("height").value = snap(input.height * scale, down);
    }
    showInputs();
    changed();
}

export function setMask(mask) {
    if (inputs[0]) inputs[0].mask = mask;
    showInputs();
    changed();
}

function removeInput(index) {
    inputs.splice(index, 1);
    showInputs();
    changed();
    $("file").focus();
}

function moveInput(from, to) {
    if (to < 0 || to >= inputs.length || from === to) return;
    const [moved] = inputs.splice(from, 1);
    inputs.splice(to, 0, moved);
    for (const input of inputs.slice(1)) input.mask = null; // a mask is a part of the first picture
    showInputs();
}

function inputElement(input, index) {
    const item = make("li", { className: "input", draggable: isReferenced() },
        make("img", { src: addressOf(input.blob), alt: "" }));
    if (input.mask) item.append(make("img", { src: addressOf(input.mask), alt: "", className: "input-mask" }));
    const name = t("remove_input", { n: index + 1 });
    item.append(make("button", { type: "button", className: "plain over-picture", title: name, "aria-label": name,
        onclick: () => removeInput(index) }, icon("close")));
    if (index > 0)
        item.append(make("button", { type: "button", className: "plain over-picture forward",
            "aria-label": t("move_input", { n: index + 1 }), title: t("move_input", { n: index + 1 }),
            onclick: () => moveInput(index, index - 1) }, icon("left")));
    item.ondragstart = (event) => event.dataTransfer.setData("text/x-zimage-input", String(index));
    item.ondragover = (event) => event.preventDefault();
    item.ondrop = (event) => {
        const from = event.dataTransfer.getData("text/x-zimage-input");
        if (from === "") return;
        event.preventDefault();
        event.stopPropagation();
        moveInput(Number(from), index);
    };
    return item;
}

function showInputs() {
    const first = inputs[0];
    $("inputs").replaceChildren(...inputs.map(inputElement));
    $("input-tools").hidden = !first;
    $("paint-text").textContent = t(first?.mask ? "edit_mask" : "paint_mask");
    $("unmask").hidden = $("composite-label").hidden = !first?.mask;
    $("start-options").hidden = !first || (isReferenced() && !first.mask);
    $("drop").hidden = inputs.length >= mostInputs() && isReferenced();
    $("drop").classList.toggle("slim", inputs.length > 0);
    $("drop-text").textContent = isReferenced() ? t("add_reference", { n: mostInputs() }) : t("add_picture");
    $("image-legend").textContent = t(isReferenced() ? "references" : "start_picture");
}

// ---- the model's facts ------------------------------------------------------------------------------------------

function showRatios() {
    const current = `${$("width").value}x${$("height").value}`;
    $("ratios").replaceChildren(...RATIOS.map((ratio, index) => {
        const { width, height } = sizeOfRatio(ratio);
        const shape = make("span", { className: "shape" });
        const most = Math.max(...ratio);
        shape.style.width = `${(18 * ratio[0]) / most}px`;
        shape.style.height = `${(18 * ratio[1]) / most}px`;
        const name = `${ratio[0]}:${ratio[1]}`;
        return make("button", { type: "button", className: "ratio", title: `${width} × ${height}`,
            "aria-pressed": String(current === `${width}x${height}`), "aria-keyshortcuts": String(index + 1),
            onclick: () => chooseRatio(index) }, shape, name);
    }));
}

export function chooseRatio(index) {
    const { width, height } = sizeOfRatio(RATIOS[index]);
    $("width").value = width;
    $("height").value = height;
    changed();
}

// Shows the fields that the chosen model has, with its ranges and its values.
function followModel(keepValues = false) {
    const { default_steps: steps = 8, distilled = true, size_multiple: multiple = 16 } = facts();
    $("field-guidance").hidden = $("field-negative_prompt").hidden = distilled;
    $("field-image").hidden = !canStart();
    $("steps").max = 4 * steps;
    $("width").step = $("height").step = $("width").min = $("height").min = multiple;
    $("width").max = facts().max_width ?? 16384;
    $("height").max = facts().max_height ?? 16384;
    $("n").max = capabilities.limits.max_n ?? 10;
    $("model-name").textContent = chosenModel();
    if (!canStart()) inputs = [];
    if (!keepValues) {
        const size = defaultSize();
        $("width").value = size.width;
        $("height").value = size.height;
        $("steps").value = steps;
        $("guidance").value = facts().default_guidance ?? 0;
    }
    showInputs();
    changed();
}

function showModels() {
    const chosen = chosenModel() || kept.get("form", {}).model;
    $("model").replaceChildren(...capabilities.models.map(({ id }) => make("option", { value: id, textContent: id })));
    $("model").value = modelNames().includes(chosen) ? chosen : capabilities.default_model;
    $("field-model").hidden = capabilities.models.length < 2;
}

export async function loadCapabilities() {
    capabilities = await api.json("GET", "capabilities");
    for (const [id, values] of [["format", capabilities.formats], ["rng", capabilities.rngs]]) {
        const before = $(id).value;
        $(id).replaceChildren(...values.map((value) => make("option", { value, textContent: value })));
        $(id).value = values.includes(before) ? before : values[0];
    }
    showModels();
    const saved = kept.get("form", {});
    followModel();
    if (saved.model === chosenModel())
        for (const name of FIELDS) if (saved[name] !== undefined && saved[name] !== "") $(name).value = saved[name];
    setRandom(saved.isRandom ?? true);
    if (!isRandom) $("seed").value = saved.seed ?? "";
    changed();
}

// A model's facts are known when it is open.
export async function refreshModels() {
    const before = facts().family;
    capabilities = await api.json("GET", "capabilities");
    if (facts().family !== before) followModel(true);
}

// ---- what follows from a change ---------------------------------------------------------------------------------

const plan = debounce(400, async () => {
    const prompt = $("prompt").value.trim();
    const size = `${$("width").value}x${$("height").value}`;
    if (!prompt) {
        $("plan").textContent = $("tokens").textContent = "";
        return;
    }
    try {
        const request = { prompt, model: chosenModel(), size, steps: Number($("steps").value) };
        request.n = Number($("n").value) || 1;
        if (!facts().distilled) request.guidance = Number($("guidance").value);
        const { seconds, wait_seconds: wait, accepted, error, ...rest } = await api.json("POST", "plan", request);
        const values = { time: duration(seconds), wait: duration(wait), memory: memory(rest.peak_bytes) };
        const { prompt_tokens: tokens = 0, max_prompt_tokens: most = 512 } = rest;
        const isCut = tokens > most;
        $("tokens").textContent = tokens > most / 2 ? t(isCut ? "tokens_cut" : "tokens", { n: tokens, most }) : "";
        $("tokens").classList.toggle("over", isCut);
        const isUnknown = seconds === 0; // the model is not open yet
        $("plan").textContent = !accepted ? error.message : isUnknown ? "" : t(wait > 1 ? "plan_wait" : "plan", values);
        if ($("error-size").dataset.isPlanned) showSizeError("");
    } catch (error) {
        $("plan").textContent = "";
        if (error instanceof api.Fault && error.field === "size") showSizeError(error.message);
    }
});

function showSizeError(sentence) {
    $("error-size").textContent = sentence;
    if (sentence) $("error-size").dataset.isPlanned = "1";
    else delete $("error-size").dataset.isPlanned;
}

const keep = debounce(300, () => {
    const values = Object.fromEntries(FIELDS.map((name) => [name, $(name).value]));
    kept.set("form", { ...values, isRandom, model: chosenModel() });
});

// Shows what depends on the values, and keeps them.
export function changed() {
    const prompt = $("prompt");
    prompt.style.height = "0";
    prompt.style.height = `${Math.min(prompt.scrollHeight + 2, 320)}px`;
    $("strength-value").textContent = Number($("strength").value).toFixed(2);
    $("steps-value").textContent = $("steps").value;
    $("guidance-value").textContent = $("guidance").value;
    $("field-quality").hidden = $("format").value === "png";
    showRatios();
    plan();
    keep();
}

export function openSheet(isOpen) {
    $("panel").classList.toggle("open", isOpen);
    for (const id of ["sheet", "sheet-button"]) $(id).setAttribute("aria-expanded", String(isOpen));
}

export function start({ paint, take }) {
    $("panel").addEventListener("input", (event) => {
        const place = $(`error-${PLACES[event.target.id] ?? event.target.id}`);
        if (place) place.textContent = "";
        event.target.removeAttribute("aria-invalid");
        if (event.target.id === "seed") setRandomFromSeed();
        changed();
    });
    for (const id of ["width", "height"])
        $(id).addEventListener("change", () => {
            $(id).value = snap(Number($(id).value) || 1, facts()[`max_${id}`] ?? 16384);
            changed();
        });
    $("model").addEventListener("change", () => followModel());
    $("swap").onclick = () => {
        [$("width").value, $("height").value] = [$("height").value, $("width").value];
        changed();
    };
    $("random").onclick = () => {
        setRandom(!isRandom);
        changed();
    };
    $("reset").onclick = () => followModel();
    $("file").onchange = () => {
        for (const file of $("file").files) take(file);
        $("file").value = "";
    };
    $("paint").onclick = paint;
    $("unmask").onclick = () => setMask(null);
    $("sheet").onclick = $("sheet-button").onclick = () => openSheet(!$("panel").classList.contains("open"));
    document.addEventListener("language", () => {
        showInputs();
        changed();
    });
}

function setRandomFromSeed() {
    isRandom = $("seed").value.trim() === "";
    $("random").setAttribute("aria-pressed", String(isRandom));
}
