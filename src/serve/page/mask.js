// Painting a mask: over the picture, at the picture's own size. The file has alpha 0 where it is painted.
import { $, make, icon, blobOf, canvasOf } from "./dom.js";
import { t } from "./texts.js";

const UNDO_MAX = 50;
const TOOLS = [["brush", "brush"], ["eraser", "eraser"], ["rectangle", "square"], ["lasso", "lasso"]];

let bitmap = null;
let painted = null; // a canvas: opaque where it is painted
let tool = "brush";
let done = [], undone = []; // of ImageData
let path = []; // points of the pointer that is down, in pixels of the picture
let cursor = { x: 0, y: 0 };
let cursorIsShown = false;
let finish = () => {};

const layer = () => painted.getContext("2d", { willReadFrequently: true });
const pixels = () => layer().getImageData(0, 0, painted.width, painted.height);

// Stripes of two colours, which can be seen on every picture.
function stripes(context) {
    const width = Math.max(4, Math.round(painted.width / 64));
    const tile = canvasOf(width, width), inside = tile.getContext("2d");
    inside.fillStyle = "#fff";
    inside.fillRect(0, 0, width, width);
    inside.fillStyle = "#c2470f";
    for (const shift of [-width, 0, width]) {
        inside.beginPath();
        for (const [x, y] of [[shift, width], [shift + width / 2, width], [shift + 1.5 * width, 0], [shift + width, 0]])
            inside.lineTo(x, y);
        inside.fill();
    }
    return context.createPattern(tile, "repeat");
}

function draw() {
    const canvas = $("easel"), context = canvas.getContext("2d");
    context.drawImage(bitmap, 0, 0);
    const tint = canvasOf(canvas.width, canvas.height), over = tint.getContext("2d");
    over.drawImage(painted, 0, 0);
    if (path.length > 1 && (tool === "rectangle" || tool === "lasso")) fillShape(over);
    over.globalCompositeOperation = "source-in";
    over.fillStyle = stripes(over);
    over.fillRect(0, 0, tint.width, tint.height);
    context.globalAlpha = 0.75;
    context.drawImage(tint, 0, 0);
    context.globalAlpha = 1;
    if (!cursorIsShown) return;
    context.lineWidth = Math.max(1, canvas.width / 400);
    for (const [color, more] of [["#fff", 0], ["#000", context.lineWidth]]) {
        context.strokeStyle = color;
        context.beginPath();
        context.arc(cursor.x, cursor.y, radius() + more, 0, 2 * Math.PI);
        context.stroke();
    }
}

const radius = (pressure = 0.5) => Math.max(0.5, (Number($("brush-size").value) / 2) * (0.5 + pressure));

function remember() {
    done.push(pixels());
    if (done.length > UNDO_MAX) done.shift();
    undone = [];
}

function step(from, to) {
    if (from.length === 0) return;
    to.push(pixels());
    layer().putImageData(from.pop(), 0, 0);
    draw();
}

function fillShape(context) {
    context.fillStyle = "#000";
    context.beginPath();
    if (tool === "rectangle") {
        const from = path[0], to = path.at(-1);
        context.rect(Math.min(from.x, to.x), Math.min(from.y, to.y), Math.abs(to.x - from.x), Math.abs(to.y - from.y));
    } else for (const point of path) context.lineTo(point.x, point.y);
    context.fill();
}

function strokeTo(to, from = to) {
    const context = layer();
    context.globalCompositeOperation = tool === "eraser" ? "destination-out" : "source-over";
    context.lineCap = context.lineJoin = "round";
    context.lineWidth = 2 * radius(to.pressure);
    context.strokeStyle = "#000";
    context.beginPath();
    context.moveTo(from.x, from.y);
    context.lineTo(to.x + 0.01, to.y);
    context.stroke();
    context.globalCompositeOperation = "source-over";
}

function pointOf(event) {
    const canvas = $("easel"), box = canvas.getBoundingClientRect();
    return {
        x: ((event.clientX - box.left) * canvas.width) / box.width,
        y: ((event.clientY - box.top) * canvas.height) / box.height,
        pressure: event.pointerType === "pen" ? event.pressure : 0.5,
    };
}

const isStroke = () => tool === "brush" || tool === "eraser";

function startPainting() {
    const canvas = $("easel");
    canvas.addEventListener("pointerdown", (event) => {
        if (event.button !== 0 || !event.isPrimary) return;
        canvas.setPointerCapture(event.pointerId);
        remember();
        path = [pointOf(event)];
        if (isStroke()) strokeTo(path[0]);
        draw();
    });
    canvas.addEventListener("pointermove", (event) => {
        cursor = pointOf(event);
        cursorIsShown = isStroke();
        if (path.length > 0 && event.isPrimary)
            for (const part of event.getCoalescedEvents?.() ?? [event]) {
                const point = pointOf(part);
                if (isStroke()) strokeTo(point, path.at(-1));
                path.push(point);
            }
        draw();
    });
    const end = () => {
        if (path.length > 1 && !isStroke()) fillShape(layer());
        path = [];
        draw();
    };
    canvas.addEventListener("pointerup", end);
    canvas.addEventListener("pointercancel", end);
    canvas.addEventListener("pointerleave", () => {
        cursorIsShown = false;
        draw();
    });
}

function invert() {
    remember();
    const image = pixels();
    for (let i = 3; i < image.data.length; i += 4) image.data[i] = image.data[i] < 128 ? 255 : 0;
    layer().putImageData(image, 0, 0);
    draw();
}

function clear() {
    remember();
    layer().clearRect(0, 0, painted.width, painted.height);
    draw();
}

function choose(name) {
    tool = name;
    for (const [id] of TOOLS) $(`tool-${id}`).setAttribute("aria-pressed", String(id === name));
}

function resize(factor) {
    $("brush-size").value = Math.round(Number($("brush-size").value) * factor + Math.sign(factor - 1));
    draw();
}

function moveCursor(event) {
    const by = Math.max(1, Number($("brush-size").value) / (event.shiftKey ? 8 : 2));
    const moves = { ArrowLeft: [-by, 0], ArrowRight: [by, 0], ArrowUp: [0, -by], ArrowDown: [0, by] };
    const [x, y] = moves[event.key];
    cursor = {
        x: Math.max(0, Math.min(painted.width, cursor.x + x)),
        y: Math.max(0, Math.min(painted.height, cursor.y + y)),
    };
    cursorIsShown = true;
    draw();
}

function paintAtCursor() {
    remember();
    strokeTo({ ...cursor, pressure: 0.5 });
    draw();
}

function onKey(event) {
    const key = event.key.toLowerCase(), isOnEasel = event.target === $("easel");
    if ((event.ctrlKey || event.metaKey) && (key === "z" || key === "y"))
        step(...(key === "y" || event.shiftKey ? [undone, done] : [done, undone]));
    else if (event.ctrlKey || event.metaKey || event.altKey) return;
    else if (key === "[") resize(0.8);
    else if (key === "]") resize(1.25);
    else if (key === "x") choose(tool === "eraser" ? "brush" : "eraser");
    else if (key === "i") invert();
    else if (key === "delete") clear();
    else if (isOnEasel && key.startsWith("arrow")) moveCursor(event);
    else if (isOnEasel && key === " ") paintAtCursor();
    else return;
    event.preventDefault();
}

// The mask as the server wants it: a PNG of the picture's size, transparent where it is painted.
async function exported() {
    const image = pixels();
    let count = 0;
    for (let i = 0; i < image.data.length; i += 4) {
        const isPainted = image.data[i + 3] >= 128;
        count += isPainted;
        image.data.set(isPainted ? [0, 0, 0, 0] : [0, 0, 0, 255], i);
    }
    if (count === 0) return null;
    const canvas = canvasOf(painted.width, painted.height);
    canvas.getContext("2d").putImageData(image, 0, 0);
    return blobOf(canvas);
}

function showTools() {
    const button = (name, symbol, run, more = {}) => make("button", { type: "button", className: "plain",
        title: t(name), "aria-label": t(name), onclick: run, ...more }, icon(symbol));
    $("mask-tools").replaceChildren(
        ...TOOLS.map(([name, symbol]) => button(name, symbol, () => choose(name), { id: `tool-${name}` })),
        make("span", { className: "rule" }),
        button("invert", "invert", invert), button("clear", "trash", clear),
        button("undo", "undo", () => step(done, undone)), button("redo", "redo", () => step(undone, done)));
    choose(tool);
}

// Opens the editor over a picture, with a mask that was painted before. use(blob) gets the new mask.
export async function edit(picture, mask, use) {
    bitmap = await createImageBitmap(picture);
    painted = canvasOf(bitmap.width, bitmap.height);
    Object.assign($("easel"), { width: bitmap.width, height: bitmap.height });
    if (mask) {
        layer().drawImage(await createImageBitmap(mask), 0, 0);
        const image = pixels();
        for (let i = 3; i < image.data.length; i += 4) image.data[i] = 255 - image.data[i];
        layer().putImageData(image, 0, 0);
    }
    path = [];
    done = [];
    undone = [];
    $("easel").style.setProperty("--ratio", bitmap.width / bitmap.height);
    cursor = { x: bitmap.width / 2, y: bitmap.height / 2 };
    $("brush-size").max = Math.max(32, Math.round(bitmap.width / 2));
    $("brush-size").value = Math.max(8, Math.round(bitmap.width / 8));
    finish = use;
    showTools();
    $("mask").showModal();
    $("easel").focus();
    draw();
}

export function start({ toast }) {
    startPainting();
    $("mask").addEventListener("keydown", onKey);
    $("brush-size").oninput = draw;
    $("mask-done").onclick = async () => {
        const mask = await exported();
        if (!mask) return toast(t("mask_empty"));
        $("mask").close();
        return finish(mask);
    };
}
