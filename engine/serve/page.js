"use strict";

const at = (id) => document.getElementById(id);
const canvas = at("canvas");
let plan = { exif: "apply", results: [] };
let shown = null; // { picture, mask, doubt, width, height }
let view = "mask";

async function start() {
  plan = await (await fetch("plan")).json();
  document.title = plan.name + " – maskfuse";
  at("name").textContent = plan.name;
  const count = plan.members.length;
  at("told").textContent = `${count} ${count === 1 ? "net" : "nets"}, ${plan.strategy}, ${plan.classes.length} classes`;
}

async function decoded(base64) {
  if (!base64) return null;
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  return createImageBitmap(new Blob([bytes], { type: "image/png" }));
}

async function predict(file) {
  at("drop").classList.add("busy");
  at("error").hidden = true;
  try {
    const response = await fetch("predict?result=all", { method: "POST", body: file });
    const answer = await response.json();
    if (!response.ok) throw new Error(answer.error);
    const told = Array.isArray(answer) ? answer[0] : answer;
    const turned = { imageOrientation: plan.exif === "ignore" ? "none" : "from-image" };
    // A browser shows no TIFF and no array: then the mask stands alone.
    const picture = await createImageBitmap(file, turned).catch(() => null);
    shown = { ...told, picture, mask: await decoded(told.mask), doubt: await decoded(told.doubt) };
    offer(told.mask, file.name);
    table(told);
    if (view === "doubt" && !shown.doubt) view = "mask";
    draw();
    at("result").hidden = false;
  } catch (error) {
    at("error").textContent = error.message || "the server does not answer";
    at("error").hidden = false;
  } finally {
    at("drop").classList.remove("busy");
  }
}

function offer(mask, name) {
  at("save").hidden = !mask;
  at("save").href = mask ? "data:image/png;base64," + mask : "#";
  at("save").download = (name || "picture").replace(/\.[^.]*$/, "") + ".mask.png";
}

function table(told) {
  const rows = told.areas.map((area) => {
    const row = document.createElement("tr");
    if (!area.pixels) row.className = "none";
    const name = document.createElement("th");
    name.scope = "row";
    const swatch = document.createElement("span");
    swatch.className = "swatch";
    swatch.style.background = area.colour;
    name.append(swatch, area.name || `class ${area.id}`);
    const pixels = document.createElement("td");
    pixels.textContent = area.pixels.toLocaleString("en");
    const share = document.createElement("td");
    share.textContent = (100 * area.share).toFixed(1) + " %";
    pixels.className = share.className = "n";
    row.append(name, pixels, share);
    return row;
  });
  at("areas").replaceChildren(...rows);
  const doubt = told.mean_doubt === undefined ? "" : `, mean doubt ${told.mean_doubt.toFixed(3)}`;
  at("size").textContent = `${told.width} × ${told.height} pixels${doubt}`;
}

function draw() {
  if (!shown) return;
  const layer = view === "doubt" ? shown.doubt : view === "mask" ? shown.mask : null;
  canvas.width = shown.width;
  canvas.height = shown.height;
  const context = canvas.getContext("2d");
  // Doubt is grey, as pictures may be: it stands alone.
  const blended = view === "mask" && layer && shown.picture;
  if (shown.picture) context.drawImage(shown.picture, 0, 0, shown.width, shown.height);
  if (layer) {
    context.globalAlpha = blended ? at("opacity").value / 100 : 1;
    context.drawImage(layer, 0, 0);
  }
  at("strength").hidden = !blended;
  for (const button of document.querySelectorAll("[data-view]")) {
    button.setAttribute("aria-pressed", String(button.dataset.view === view));
    button.disabled = !shown[button.dataset.view];
  }
}

for (const button of document.querySelectorAll("[data-view]")) {
  button.addEventListener("click", () => { view = button.dataset.view; draw(); });
}
at("opacity").addEventListener("input", draw);
at("file").addEventListener("change", (event) => {
  if (event.target.files[0]) predict(event.target.files[0]);
  event.target.value = "";
});
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  window.addEventListener(kind, (event) => {
    event.preventDefault();
    at("drop").classList.toggle("over", kind === "dragenter" || kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files[0]) predict(event.dataTransfer.files[0]);
  });
}
start();
