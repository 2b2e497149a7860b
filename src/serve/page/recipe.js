// Recipes: what a picture's file, or a link, says of how it was made.
import { $, make, addressOf, pixelsOf } from "./dom.js";
import { t } from "./texts.js";
import * as api from "./api.js";
import * as form from "./form.js";

const SHOWN = ["prompt", "negative_prompt", "size", "seed", "steps", "guidance", "strength", "composite", "rng",
    "model"];
const NUMBERS = ["steps", "guidance", "strength"];

// What may differ between two machines that make the same picture.
const MAKERS = ["model_fingerprint", "kernels", "compute", "version"];

// What a picture's file says: {request, recipe, source}; null: nothing.
export async function read(file) {
    try {
        const found = await api.json("POST", "recipe", file);
        return found.request.prompt ? found : null;
    } catch (error) {
        if (error instanceof api.Fault && error.code === "recipe_not_found") return null;
        throw error;
    }
}

// ---- links ------------------------------------------------------------------------------------------------------

export function linkTo(request) {
    const values = SHOWN.filter((name) => request[name] !== undefined).map((name) => [name, String(request[name])]);
    return `${location.origin}${location.pathname}#${new URLSearchParams(values)}`;
}

export function fromHash() {
    const values = new URLSearchParams(location.hash.slice(1));
    if (!values.get("prompt")) return null;
    const request = Object.fromEntries([...values].filter(([name]) => SHOWN.includes(name)));
    for (const name of NUMBERS) if (request[name] !== undefined) request[name] = Number(request[name]);
    return request;
}

// ---- the dialog -------------------------------------------------------------------------------------------------

const isSame = (a, b) => a.every((value, index) => value === b[index]);

// What was different when the first picture was made: "kernels avx2, now avx512".
async function reasons(before, now) {
    const [a, b] = (await Promise.all([read(before), read(now)])).map((found) => found?.recipe ?? {});
    return MAKERS.filter((name) => a[name] !== undefined && a[name] !== b[name])
        .map((name) => t("other_maker", { name: name.replace("_", " "), before: a[name], now: b[name] ?? "?" }));
}

// How a picture that was made again differs from the one that its recipe came from, and why.
export async function compare(before, now) {
    const [a, b] = await Promise.all([pixelsOf(before), pixelsOf(now)]);
    if (a.width !== b.width || a.height !== b.height) return t("other_size");
    const [x, y] = [new Uint32Array(a.data.buffer), new Uint32Array(b.data.buffer)];
    if (isSame(x, y)) return t("same_pixels");
    const count = x.filter((value, index) => value !== y[index]).length;
    return [t("other_pixels", { n: count, all: x.length }), ...await reasons(before, now)].join(" ");
}

function action(name, run, isMain = false) {
    return make("button", { type: "button", className: isMain ? "primary small" : "secondary small",
        id: `recipe-${name}`,
        textContent: t(`recipe_${name}`), onclick: () => {
            $("recipe").close();
            run();
        } });
}

// Shows a recipe and what can be done with it. again(request), startFrom(file): set by app.js.
export function show(file, { request, recipe, source }, { again, startFrom }) {
    $("recipe-picture").src = addressOf(file);
    $("recipe-facts").replaceChildren(...SHOWN.filter((name) => request[name] !== undefined && request[name] !== 0)
        .flatMap((name) => [make("dt", { textContent: t(name) }), make("dd", { textContent: request[name] })]));
    const isMissing = request.model && !form.modelNames().includes(request.model);
    $("recipe-note").textContent = source !== "zimage" ? t("recipe_source", { source })
        : recipe.images ? t("recipe_images") : isMissing ? t("recipe_no_model", { model: request.model }) : "";
    const buttons = [action("use", () => form.fill(request), true)];
    if (source === "zimage" && !recipe.images) buttons.unshift(action("again", () => again(request)));
    if (form.canStart()) buttons.unshift(action("input", startFrom));
    $("recipe-actions").replaceChildren(...buttons);
    $("recipe").showModal();
    $("recipe-use").focus();
}
