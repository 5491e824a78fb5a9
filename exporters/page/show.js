// What one picture's result looks like: picture and mask on a canvas, areas in a table.

import { asRgba, readPicture } from "./picture.js";

const THUMB = 96;
const at = (id) => document.getElementById(id);
let view = "mask", address = "", shown = null;

/** Pixels of each class. */
export function areasOf(labels, { classes }) {
  const counts = new Uint32Array(256);
  for (const label of labels) counts[label]++;
  return [...counts.subarray(0, classes.length)];
}

/** The mask on its button, small; what cannot be predicted gets a mark. */
export function drawThumb(item, { classes }) {
  if (item.error) {
    const mark = document.createElement("span");
    mark.className = "mark";
    mark.textContent = "!";
    item.button.firstChild.replaceWith(mark);
    item.button.title = `${item.name}: ${item.error}`;
    return;
  }
  const step = Math.max(1, Math.ceil(Math.max(item.width, item.height) / THUMB));
  const width = Math.ceil(item.width / step), height = Math.ceil(item.height / step);
  const image = new ImageData(width, height);
  for (let to = 0; to < width * height; to++) {
    const from = Math.floor(to / width) * step * item.width + (to % width) * step;
    image.data.set([...classes[item.labels[from]].colour, 255], 4 * to);
  }
  const thumb = Object.assign(document.createElement("canvas"), { width, height });
  thumb.getContext("2d").putImageData(image, 0, 0);
  item.button.firstChild.replaceWith(thumb);
  item.button.title = item.name;
}

/** Fill the result with an item; `still` says whether it is still the one to show. */
export async function show(item, ensemble, still) {
  at("result").hidden = false;
  at("name").textContent = item.name;
  at("refused").hidden = !item.error;
  at("refused").textContent = item.error ?? "";
  at("found").hidden = !item.mask;
  if (!item.mask) return;
  areas(item, ensemble);
  const how = item.exact ? "" : "; decoded by the browser, so single values may differ by a step from those the command reads";
  at("told").textContent = `${item.height} x ${item.width} pixels in ${item.milliseconds.toFixed(0)} ms${how}`;
  URL.revokeObjectURL(address);
  address = URL.createObjectURL(item.mask);
  Object.assign(at("save"), { href: address, download: `${item.name}.mask.png` });
  // Decoded again: kept pictures would fill the memory.
  const rgba = asRgba(await readPicture(item.file, ensemble, item.alike));
  if (!still()) return;
  shown = { item, ensemble, rgba };
  draw();
}

/** Let the buttons and the slider choose what is drawn; once. */
export function listen({ doubt }) {
  for (const button of at("views").querySelectorAll("button")) {
    if (button.dataset.view === "doubt") button.hidden = !doubt;
    button.addEventListener("click", () => {
      view = button.dataset.view;
      for (const other of at("views").querySelectorAll("button")) other.setAttribute("aria-pressed", String(other === button));
      draw();
    });
  }
  at("opacity").addEventListener("input", draw);
}

function draw() {
  if (!shown) return;
  const { item, ensemble, rgba } = shown, { width, height, labels } = item, canvas = at("canvas");
  const share = view === "picture" ? 0 : at("opacity").value / 100, mixed = rgba.slice();
  const most = view === "doubt" ? item.doubt.reduce((a, b) => Math.max(a, b), 0) || 1 : 1;
  for (let pixel = 0; share && pixel < labels.length; pixel++) {
    const { colour } = ensemble.classes[labels[pixel]], grey = view === "doubt" ? (255 * item.doubt[pixel]) / most : 0;
    for (let channel = 0; channel < 3; channel++) {
      const place = 4 * pixel + channel;
      mixed[place] = share * (view === "doubt" ? grey : colour[channel]) + (1 - share) * rgba[place];
    }
  }
  at("strength").hidden = view === "picture";
  Object.assign(canvas, { width, height });
  canvas.getContext("2d").putImageData(new ImageData(mixed, width, height), 0, 0);
}

function areas(item, { classes }) {
  const total = item.labels.length, percent = (count) => `${((100 * count) / total).toFixed(1)} %`;
  at("areas").replaceChildren(...classes.map(({ name, colour }, label) => {
    const row = document.createElement("tr"), head = document.createElement("th"), swatch = document.createElement("span");
    head.scope = "row";
    swatch.className = "swatch";
    swatch.style.background = `rgb(${colour})`;
    head.append(swatch, `${label} ${name}`);
    row.append(head, ...[item.areas[label].toLocaleString("en"), percent(item.areas[label])].map((text) => {
      const cell = document.createElement("td");
      cell.className = "n";
      cell.textContent = text;
      return cell;
    }));
    return row;
  }));
  const told = classes.map(({ name }, label) => [item.areas[label], name]).filter(([count]) => count)
    .sort(([a], [b]) => b - a).map(([count, name]) => `${name} ${percent(count)}`);
  at("canvas").setAttribute("aria-label", `${item.name}: ${told.join(", ")}`);
}
