// The pictures that this browser keeps, in IndexedDB: what is known of a picture with its thumbnail in one store, and
// its file in another, so that a long gallery is read quickly.
import { thumbnailOf } from "./dom.js";

const BIN_DAYS = 30;
const DAY = 86400000;
let opened = null;

function open() {
    opened ??= new Promise((resolve, reject) => {
        const request = indexedDB.open("zimage", 1);
        request.onupgradeneeded = () => {
            request.result.createObjectStore("pictures", { keyPath: "id" });
            request.result.createObjectStore("files");
        };
        request.onsuccess = () => resolve(request.result);
        request.onerror = () => reject(request.error);
    });
    return opened;
}

// Runs work(pictures, files) in one transaction; its last request's result.
async function transact(mode, work) {
    const database = await open();
    return new Promise((resolve, reject) => {
        const transaction = database.transaction(["pictures", "files"], mode);
        const request = work(transaction.objectStore("pictures"), transaction.objectStore("files"));
        transaction.oncomplete = () => resolve(request?.result);
        transaction.onerror = transaction.onabort = () => reject(transaction.error);
    });
}

// All pictures, newest first. Those that were in the bin for 30 days are forgotten.
export async function load(forget = ({ id }) => erase(id)) {
    const pictures = (await transact("readonly", (store) => store.getAll())) ?? [];
    const old = pictures.filter((picture) => picture.deleted && Date.now() - picture.deleted > BIN_DAYS * DAY);
    for (const picture of old) await forget(picture);
    return pictures.filter((picture) => !old.includes(picture)).sort(newestFirst);
}

export const newestFirst = (a, b) => b.created - a.created || b.index - a.index;

// id: of the job and the picture's number, so that none is kept twice. inputs: { images, mask } that it started from;
// null: none.
export async function add(id, blob, about, inputs) {
    const { blob: thumbnail, width, height } = await thumbnailOf(blob);
    const picture = { id, created: Date.now(), thumbnail, width, height, bytes: blob.size, type: blob.type,
        starred: false, deleted: 0, hasInputs: Boolean(inputs), index: 0, ...about };
    await transact("readwrite", (pictures, files) => {
        files.put(blob, id);
        if (inputs) files.put(inputs, inputsOf(id));
        return pictures.put(picture);
    });
    return picture;
}

export const change = (picture) => transact("readwrite", (pictures) => pictures.put(picture));
const inputsOf = (id) => `${id}-inputs`;
export const inputs = (id) => transact("readonly", (pictures, files) => files.get(inputsOf(id)));
export const file = (id) => transact("readonly", (pictures, files) => files.get(id));

export const erase = (id) => transact("readwrite", (pictures, files) => {
    files.delete(id);
    files.delete(inputsOf(id));
    return pictures.delete(id);
});
