// The server: requests with the key it asks for, faults as errors, and streams of events.

const ROOT = "/zimage/v1";
let key = "";
try {
    key = sessionStorage.getItem("zimage.key") || "";
} catch { /* the key lasts as long as the page */ }

// What the page does when the server asks for a key, and when it can't be reached (again): set by app.js.
export const on = { key: async (wasWrong) => "", reach: (isReached) => {} };

// A refusal of the server: its own sentence, and the field it is about.
export class Fault extends Error {
    constructor(status, error) {
        super(error?.message || `HTTP ${status}`);
        this.status = status;
        this.code = error?.code || "";
        this.field = error?.param || "";
    }
}

export class Unreachable extends Error {}

async function send(method, path, body, headers, signal) {
    const options = { method, headers: { ...headers }, signal, cache: "no-store" };
    if (key) options.headers.Authorization = `Bearer ${key}`;
    if (body instanceof FormData || body instanceof Blob) options.body = body;
    else if (body !== undefined) {
        options.body = JSON.stringify(body);
        options.headers["Content-Type"] = "application/json";
    }
    try {
        const answer = await fetch(path, options);
        on.reach(true);
        return answer;
    } catch (error) {
        if (error.name === "AbortError") throw error;
        on.reach(false);
        throw new Unreachable(error.message);
    }
}

let asking = null; // one question for the key, however many requests wait for it

async function askForKey() {
    asking ??= on.key(key !== "").finally(() => { asking = null; });
    const answer = await asking;
    if (!answer) return false;
    key = answer;
    try {
        sessionStorage.setItem("zimage.key", key);
    } catch { /* as above */ }
    return true;
}

export async function call(method, path, body, { headers, signal } = {}) {
    for (;;) {
        const answer = await send(method, path.startsWith("/") ? path : `${ROOT}/${path}`, body, headers, signal);
        if (answer.ok) return answer;
        const fault = new Fault(answer.status, (await answer.json().catch(() => ({}))).error);
        if (answer.status !== 401 || !(await askForKey())) throw fault;
    }
}

export const json = async (...request) => (await call(...request)).json();
export const blob = async (...request) => (await call(...request)).blob();

const pause = (milliseconds) => new Promise((resolve) => { setTimeout(resolve, milliseconds); });

// One event of a stream: its lines.
function parse(text) {
    const event = { id: "", kind: "message", data: "" };
    for (const line of text.split("\n")) {
        const value = line.slice(line.indexOf(":") + 1).trimStart();
        if (line.startsWith("id:")) event.id = value;
        else if (line.startsWith("event:")) event.kind = value;
        else if (line.startsWith("data:")) event.data += value;
    }
    return event;
}

// Calls take(kind, data) for each event until one is the last, "end". A broken stream goes on behind the last event.
export async function events(path, take, signal) {
    let last = "";
    for (let waited = 500; ; waited = Math.min(2 * waited, 8000)) {
        try {
            const headers = last ? { "Last-Event-ID": last } : {};
            const answer = await call("GET", path, undefined, { headers, signal });
            const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
            for (let text = ""; ;) {
                const { value, done } = await reader.read();
                if (done) break;
                const parts = (text + value).split("\n\n");
                text = parts.pop();
                for (const event of parts.map(parse)) {
                    if (!event.data) continue;
                    waited = 500;
                    last = event.id || last;
                    await take(event.kind, JSON.parse(event.data));
                    if (event.kind === "end") return;
                }
            }
        } catch (error) {
            if (error.name === "AbortError" || error instanceof Fault) throw error;
        }
        await pause(waited);
    }
}
