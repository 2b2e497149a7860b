// Recipes: what a picture's file, or a link, says of how it was made.
import { $, make, addressOf, pixelsOf } from "./dom.js";
import { t } from "./texts.js";
import * as api from "./api.js";
import * as form from "./form.js";

const SHOWN = ["prompt", "negative_prompt", "size", "seed", "steps", "guidance", "strength", "rng", "model"];
const NUMBERS = ["steps", "guidance", "strength"];

// The request in a picture's file; null: the file has none.
export async function read(file) {
    try {
        const { request } = await api.json("POST", "recipe", file);
        return request.prompt ? request : null;
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

// How a picture that was made again differs from the one that its recipe came from.
export async function compare(before, now) {
    const [a, b] = await Promise.all([pixelsOf(before), pixelsOf(now)]);
    if (a.width !== b.width || a.height !== b.height) return t("other_size");
    const [x, y] = [new Uint32Array(a.data.buffer), new Uint32Array(b.data.buffer)];
    if (isSame(x, y)) return t("same_pixels");
    return t("other_pixels", { n: x.filter((value, index) => value !== y[index]).length, all: x.length });
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
export function show(file, request, { again, startFrom }) {
    $("recipe-picture").src = addressOf(file);
    $("recipe-facts").replaceChildren(...SHOWN.filter((name) => request[name] !== undefined && request[name] !== 0)
        .flatMap((name) => [make("dt", { textContent: t(name) }), make("dd", { textContent: request[name] })]));
    const isMissing = request.model && !form.modelNames().includes(request.model);
    $("recipe-note").textContent = isMissing ? t("recipe_no_model", { model: request.model }) : "";
    const buttons = [action("again", () => again(request)), action("use", () => form.fill(request), true)];
    if (form.canStart()) buttons.unshift(action("input", startFrom));
    $("recipe-actions").replaceChildren(...buttons);
    $("recipe").showModal();
    $("recipe-use").focus();
}
