// Small helpers for elements, storage and pictures.

export const $ = (id) => document.getElementById(id);

// Makes an element. Properties are set as they are; those that begin with "aria-" or "data-" and "role" as attributes.
export function make(tag, properties = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(properties))
        if (value === undefined || value === null) continue;
        else if (/^(aria-|data-|role$)/.test(name)) element.setAttribute(name, value);
        else element[name] = value;
    element.append(...children);
    return element;
}

// An icon of the sheet in index.html.
export function icon(name) {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
    svg.setAttribute("class", "icon");
    svg.setAttribute("aria-hidden", "true");
    use.setAttribute("href", `#i-${name}`);
    svg.append(use);
    return svg;
}

export function debounce(milliseconds, run) {
    let timer = 0;
    return (...values) => {
        clearTimeout(timer);
        timer = setTimeout(() => run(...values), milliseconds);
    };
}

// Values that this browser keeps. Without storage (a private window) they last as long as the page.
export const kept = {
    get(name, otherwise) {
        try {
            return JSON.parse(localStorage.getItem(`zimage.${name}`)) ?? otherwise;
        } catch {
            return otherwise;
        }
    },
    set(name, value) {
        try {
            localStorage.setItem(`zimage.${name}`, JSON.stringify(value));
        } catch { /* it lasts as long as the page */ }
    },
};

export function canvasOf(width, height) {
    return make("canvas", { width, height });
}

export function blobOf(canvas, type = "image/png", quality = undefined) {
    return new Promise((resolve, reject) =>
        canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("no memory for a picture"))), type, quality));
}

// The pixels of a picture as they are stored: no colours are changed, none is multiplied by its alpha.
export async function pixelsOf(blob) {
    const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
    const canvas = canvasOf(bitmap.width, bitmap.height);
    canvas.getContext("2d").drawImage(bitmap, 0, 0);
    return canvas.getContext("2d").getImageData(0, 0, bitmap.width, bitmap.height);
}

// A JPEG whose longest side is 256 pixels or less.
export async function thumbnailOf(blob, side = 256) {
    const bitmap = await createImageBitmap(blob);
    const scale = Math.min(1, side / Math.max(bitmap.width, bitmap.height));
    const scaled = (length) => Math.max(1, Math.round(length * scale));
    const canvas = canvasOf(scaled(bitmap.width), scaled(bitmap.height));
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    return { blob: await blobOf(canvas, "image/jpeg", 0.85), width: bitmap.width, height: bitmap.height };
}

// Fetches addresses of blobs, and gives the same address for the same blob.
const addresses = new WeakMap();
export function addressOf(blob) {
    if (!addresses.has(blob)) addresses.set(blob, URL.createObjectURL(blob));
    return addresses.get(blob);
}

export function download(blob, name) {
    const link = make("a", { href: addressOf(blob), download: name });
    document.body.append(link);
    link.click();
    link.remove();
}
