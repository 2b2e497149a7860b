// The jobs of this page: they are the server's, so they go on when the page is closed, and are found again.
import { kept } from "./dom.js";
import * as api from "./api.js";
import * as gallery from "./gallery.js";

let jobs = []; // oldest first
let told = { changed: () => {}, preview: () => {}, picture: () => {}, failed: () => {}, finished: () => {} };
let polling = 0;

export const all = () => jobs;
export const running = () => jobs.find((job) => job.state === "running") ?? jobs[0] ?? null;

function keep() {
    kept.set("jobs", jobs.map(({ id, request, n }) => ({ id, request, n })));
}

function end(job) {
    jobs = jobs.filter((other) => other !== job);
    keep();
    told.changed(job);
}

async function takePicture(job, { index, seed, url, gallery_id: kept }) {
    const blob = await api.blob("GET", url);
    const { n, ...request } = job.request;
    const picture = await gallery.add(`${job.id}-${index}`, blob,
        { request: { ...request, seed }, index, kept, seconds: (Date.now() - job.began) / 1000 },
        job.inputs);
    job.began = Date.now();
    job.preview = "";
    told.picture(job, picture, blob);
}

async function take(job, kind, data) {
    if (data.state === "running" && job.state !== "running") job.began = Date.now();
    if (data.state === "queued") { // perhaps again: its worker may be gone
        Object.assign(job, { fraction: 0, preview: "" });
        if (!polling) polling = setTimeout(poll, 300);
    }
    Object.assign(job, { state: data.state, index: data.index ?? job.index });
    if (kind === "progress" || kind === "preview")
        Object.assign(job, { stage: data.stage, step: data.step, steps: data.steps, eta: data.eta_seconds,
            fraction: (data.index + data.fraction) / job.n });
    if (kind === "preview") {
        job.preview = `data:image/jpeg;base64,${data.jpeg}`;
        told.preview(job);
    }
    if (kind === "picture") await takePicture(job, data);
    if (kind === "end") {
        end(job);
        if (data.error) told.failed(job, new api.Fault(0, data.error));
        else told.finished(job, data.warnings);
    } else told.changed(job);
}

async function follow(job) {
    try {
        await api.events(`jobs/${job.id}/events`, (kind, data) => take(job, kind, data));
    } catch (error) {
        end(job);
        told.failed(job, error);
    }
}

// Places in the queue change without an event.
async function poll() {
    const waiting = jobs.filter((job) => job.state === "queued");
    for (const job of waiting)
        try {
            const { position, progress } = await api.json("GET", `jobs/${job.id}`);
            if (job.state !== "queued") continue;
            Object.assign(job, { position: position ?? 0, eta: progress.eta_seconds });
            told.changed(job);
        } catch { /* its stream says what is wrong */ }
    polling = jobs.some((job) => job.state === "queued") ? setTimeout(poll, 1000) : 0;
}

function watch(job) {
    jobs.push(job);
    keep();
    follow(job);
    if (!polling) polling = setTimeout(poll, 300);
    told.changed(job);
}

const begun = (id, request, n) =>
    ({ id, request, n, state: "queued", position: 0, eta: 0, fraction: 0, index: 0, began: Date.now(), preview: "" });

// body: the request, or a form of it with pictures. more: what the page wants to know when a picture arrives.
export async function submit(request, body, more = {}) {
    const { id, state, position, eta_seconds: eta } = await api.json("POST", "jobs", body);
    const job = { ...begun(id, request, request.n ?? 1), state, position, eta, ...more };
    watch(job);
    return job;
}

export async function cancel(job) {
    try {
        await api.call("DELETE", `jobs/${job.id}`);
    } catch (error) {
        if (!(error instanceof api.Fault)) throw error; // else it is over already
    }
}

export function start(actions) {
    told = actions;
    for (const { id, request, n } of kept.get("jobs", []))
        watch(begun(id, request, n));
}
