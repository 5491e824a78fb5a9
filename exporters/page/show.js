// What one picture's result looks like: picture and mask on a canvas, areas in a table.

import { asRgba, readPicture } from "./picture.js";

const OVERLAY = 0.6;
const THUMB = 96;
const at = (id) => document.getElementById(id);
let view = "overlay", address = "";

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
  const waiting = !item.error && !item.areas;
  at("refused").hidden = !item.error;
  at("refused").textContent = item.error ?? "";
  at("found").hidden = Boolean(item.error) || waiting;
  if (at("found").hidden) return;
  views(ensemble, () => draw(item, ensemble, still));
  areas(item, ensemble);
  const how = item.exact ? "" : "; decoded by the browser, so single values may differ by a step from those the command reads";
  at("told").textContent = `${item.height} x ${item.width} pixels in ${item.milliseconds.toFixed(0)} ms${how}`;
  URL.revokeObjectURL(address);
  address = URL.createObjectURL(item.mask);
  Object.assign(at("save"), { href: address, download: `${item.name}-mask.png` });
  await draw(item, ensemble, still);
}

function views(ensemble, redraw) {
  const names = { overlay: "Both", mask: "Mask", picture: "Picture", ...(ensemble.doubt ? { doubt: "Doubt" } : {}) };
  const boxes = Object.entries(names).map(([value, told]) => {
    const label = document.createElement("label"), input = document.createElement("input");
    Object.assign(input, { type: "radio", name: "view", value, checked: value === view });
    input.addEventListener("change", () => {
      view = value;
      redraw();
    });
    label.append(input, ` ${told}`);
    return label;
  });
  at("views").replaceChildren(at("views").querySelector("legend"), ...boxes);
}

async function draw(item, ensemble, still) {
  // Decoded again: kept pictures would fill the memory.
  const picture = view === "overlay" || view === "picture" ? await readPicture(item.file, ensemble, item.alike) : null;
  if (!still()) return;
  const { width, height, labels } = item, canvas = at("canvas");
  const rgba = picture ? asRgba(picture) : new Uint8ClampedArray(width * height * 4).fill(255);
  const share = { overlay: OVERLAY, mask: 1 }[view] ?? 0;
  for (let pixel = 0; share && pixel < labels.length; pixel++) {
    const { colour } = ensemble.classes[labels[pixel]];
    for (let channel = 0; channel < 3; channel++) {
      const place = 4 * pixel + channel;
      rgba[place] = share * colour[channel] + (1 - share) * rgba[place];
    }
  }
  if (view === "doubt") {
    const most = item.doubt.reduce((a, b) => Math.max(a, b), 0) || 1;
    item.doubt.forEach((value, pixel) => rgba.fill((255 * value) / most, 4 * pixel, 4 * pixel + 3));
  }
  Object.assign(canvas, { width, height });
  canvas.getContext("2d").putImageData(new ImageData(rgba, width, height), 0, 0);
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
