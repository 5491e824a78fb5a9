// The page: opens the ensemble in a worker, predicts dropped pictures one after the other, shows what came.

import { readPicture } from "./picture.js";
import { encodeLabels } from "./png.js";
import { areasOf, drawThumb, listen, show } from "./show.js";
import { zip } from "./zip.js";

const at = (id) => document.getElementById(id);
const results = [];
let ensemble, current = null, waiting = Promise.resolve(), pending = 0, begun = 0, refused = 0, finished = 0, device = "";

/** Returns a function that asks the worker for one thing and gives its answer. */
function worker() {
  // From a blob, so that the policy of this page binds the worker too: one that has an address of its own would have none.
  const source = `import ${JSON.stringify(new URL("predict.js", import.meta.url).href)};`;
  const address = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  const made = new Worker(address, { type: "module" }), open = new Map();
  let asked = 0;
  const fail = (event) => {
    for (const [, reject] of open.values()) reject(new Error(event.message || "a file of the page is missing"));
    open.clear();
  };
  made.addEventListener("error", fail);
  made.addEventListener("message", ({ data: [id, answer, error] }) => {
    const [resolve, reject] = open.get(id) ?? [];
    open.delete(id);
    if (error) reject?.(new Error(error));
    else resolve?.(answer);
  });
  return (task, given) => new Promise((resolve, reject) => {
    open.set(++asked, [resolve, reject]);
    made.postMessage([asked, task, given]);
  });
}

async function start() {
  at("state").textContent = "Opening the ensemble …";
  const answer = await fetch(new URL("ensemble.json", import.meta.url));
  if (!answer.ok) throw new Error("ensemble.json is missing: make the page again");
  ensemble = await answer.json();
  document.title = at("title").textContent = ensemble.title;
  at("about").textContent = ensemble.about;
  at("made").textContent = ensemble.made;
  const ask = worker();
  const opened = await ask("open", { about: ensemble, device: new URLSearchParams(location.search).get("device") });
  device = opened.device;
  at("device").textContent = `Runs on ${opened.told}.`;
  at("state").textContent = "Ready.";
  invite(ask);
}

function invite(ask) {
  const { size, channels } = ensemble, drop = at("drop");
  const sides = size ? `${size[0]} x ${size[1]} pixels (height x width)` : "any size";
  at("takes").textContent = `${channels === 1 ? "Grey" : "RGB"}, ${sides}. PNG is read exactly; JPEG, WebP and BMP as the browser decodes them.`;
  at("alike-told").textContent = channels === 1 ? "RGB as grey (ITU-R BT.601)" : "Grey as RGB";
  at("alike-box").hidden = drop.hidden = false;
  at("files").addEventListener("change", ({ target }) => {
    add([...target.files], ask);
    target.value = "";
  });
  for (const kind of ["dragover", "dragleave", "drop"]) {
    addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", kind === "dragover");
      if (kind === "drop") add([...event.dataTransfer.files], ask);
    });
  }
  listen(ensemble);
  at("alike").addEventListener("change", () => queue(results.filter(({ error }) => error), ask));
  at("save-all").addEventListener("click", saveAll);
}

function add(files, ask) {
  queue(files.map((file) => {
    const item = { file, name: nameOf(file) };
    results.push(item);
    list(item);
    return item;
  }), ask);
}

function queue(items, ask) {
  if (!pending) [begun, refused, finished] = [performance.now(), 0, 0];
  pending += items.length;
  for (const item of items) {
    Object.assign(item, { error: null, alike: at("alike").checked });
    waiting = waiting.then(() => predict(item, ask));
  }
}

async function predict(item, ask) {
  try {
    const { width, height, data, exact } = await readPicture(item.file, ensemble, item.alike);
    const answer = await ask("predict", { width, height, data });
    Object.assign(item, answer, { width, height, exact });
    if (item.labels[0] === ensemble.not_finite) throw new Error("a member computes NaN or infinity for this picture");
    item.areas = areasOf(item.labels, ensemble);
    item.mask = await encodeLabels(item.labels, width, height, ensemble.classes.map(({ colour }) => colour));
  } catch (error) {
    item.error = error.message || String(error);
    refused++;
  }
  pending--;
  finished++;
  drawThumb(item, ensemble);
  const seconds = (performance.now() - begun) / 1000, count = finished - refused;
  const speed = count > 1 ? `: ${(count / seconds).toFixed(1)} a second, with decoding and drawing` : "";
  at("state").textContent = pending
    ? `${finished} of ${finished + pending} pictures …`
    : `${count} ${count === 1 ? "picture" : "pictures"} predicted on ${device === "wasm" ? "WASM" : "WebGPU"}${speed}` +
      `${refused ? `; ${refused} refused` : ""}.`;
  at("save-all").hidden = results.filter(({ mask }) => mask).length < 2;
  if (!current || current === item) choose(item);
}

/** The file's name without its ending; a second picture of that name gets a number. */
function nameOf(file) {
  const stem = file.name.replace(/\.[^.]*$/, "") || "picture", names = new Set(results.map(({ name }) => name));
  let name = stem;
  for (let number = 2; names.has(name); number++) name = `${stem}-${number}`;
  return name;
}

function list(item) {
  const entry = document.createElement("li"), label = document.createElement("span");
  item.button = document.createElement("button");
  item.button.type = "button";
  label.className = "label";
  label.textContent = item.button.title = item.name;
  item.button.append(document.createElement("canvas"), label);
  item.button.addEventListener("click", () => choose(item));
  entry.append(item.button);
  at("list").append(entry);
  at("list").hidden = results.length < 2;
}

function choose(item) {
  current?.button.removeAttribute("aria-current");
  current = item;
  item.button.setAttribute("aria-current", "true");
  return show(item, ensemble, () => current === item);
}

async function saveAll() {
  try {
    const files = results.filter(({ mask }) => mask).map(({ name, mask }) => [`${name}.png`, mask]);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(await zip(files));
    link.download = "masks.zip";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  } catch (error) {
    at("state").textContent = error.message;
  }
}

start().catch((error) => {
  at("state").textContent = `The ensemble cannot be opened: ${error.message}`;
  at("state").className = "warn";
});
