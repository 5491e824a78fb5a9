// The worker that runs the packed ensemble: on WebGPU where there is one and it gives the same labels, else in WASM.

const here = (name) => new URL(name, import.meta.url).href;
// Of the labels on a noise picture so many may differ between WebGPU and WASM: ties within float32 rounding.
const MOST_APART = 1e-3;
// Sides of that picture where the ensemble takes any.
const TRIAL = [32, 64];
const PROVIDER = { webgpu: "runtime/ort.webgpu.min.mjs", wasm: "runtime/ort.wasm.min.mjs" };
const FILES = { webgpu: "runtime/ort-wasm-simd-threaded.asyncify", wasm: "runtime/ort-wasm-simd-threaded" };

let ort, session, ensemble;

addEventListener("message", async ({ data: [id, task, given] }) => {
  try {
    const answer = await { open, predict }[task](given);
    postMessage([id, answer, null], Object.values(answer).filter(ArrayBuffer.isView).map((view) => view.buffer));
  } catch (error) {
    postMessage([id, null, error.message || String(error)]);
  }
});

async function open({ about, device }) {
  ensemble = about;
  const told = [];
  if (device !== "wasm") {
    try {
      const adapter = await navigator.gpu?.requestAdapter();
      if (!adapter) throw new Error("the browser offers none");
      await load("webgpu");
      const gpu = await create("webgpu");
      const apart = await compared(gpu, await create("wasm"));
      if (apart > MOST_APART) throw new Error(`${(100 * apart).toFixed(2)} % of its labels on a trial differ`);
      session = gpu;
      const { vendor, architecture } = adapter.info ?? {};
      return { device: "webgpu", told: ["WebGPU", [vendor, architecture].filter(Boolean).join(" ")].filter(Boolean).join(", ") };
    } catch (error) {
      told.push(`not on WebGPU: ${error.message}`);
    }
  }
  const threads = await load("wasm");
  session = await create("wasm");
  const several = threads > 1 ? `${threads} threads` : "one thread";
  if (!crossOriginIsolated) told.push("more threads need two headers of the server, COOP and COEP");
  return { device: "wasm", told: [`WASM, ${several}`, ...told].join("; ") };
}

async function load(kind) {
  ort = await import(here(PROVIDER[kind]));
  const { wasm } = ort.env;
  wasm.wasmPaths = { mjs: here(`${FILES[kind]}.mjs`), wasm: here(`${FILES[kind]}.wasm`) };
  wasm.numThreads = crossOriginIsolated ? Math.max(1, navigator.hardwareConcurrency || 1) : 1;
  ort.env.logLevel = "error";
  return wasm.numThreads;
}

function create(provider) {
  return ort.InferenceSession.create(here("ensemble.onnx"), { executionProviders: [provider] });
}

/** The share of labels that two sessions give otherwise on noise. */
async function compared(gpu, cpu) {
  const [height, width] = ensemble.size ?? TRIAL;
  let state = 1;
  const data = Uint8Array.from({ length: height * width * ensemble.channels }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state >>> 24;
  });
  const [one, other] = [await run(gpu, { height, width, data }), await run(cpu, { height, width, data })];
  return one.labels.reduce((sum, label, at) => sum + (label !== other.labels[at]), 0) / one.labels.length;
}

function predict(picture) {
  return run(session, picture);
}

async function run(held, { height, width, data }) {
  const { channels, kind, batch } = ensemble;
  const count = batch ?? 1, pixels = height * width;
  const planes = new (kind === "uint8" ? Uint8Array : Float32Array)(count * channels * pixels);
  for (let channel = 0; channel < channels; channel++) {
    for (let at = 0; at < pixels; at++) planes[channel * pixels + at] = data[at * channels + channel];
  }
  // A graph of a fixed batch gets the picture in every place.
  for (let copy = 1; copy < count; copy++) planes.copyWithin(copy * channels * pixels, 0, channels * pixels);
  const images = new ort.Tensor(kind, planes, [count, channels, height, width]);
  const begun = performance.now();
  const found = await held.run({ [ensemble.input]: images }, ensemble.doubt ? ["labels", "doubt"] : ["labels"]);
  const answer = { labels: (await found.labels.getData()).slice(0, pixels), milliseconds: performance.now() - begun };
  if (ensemble.doubt) answer.doubt = (await found.doubt.getData()).slice(0, pixels);
  for (const tensor of [images, ...Object.values(found)]) tensor.dispose();
  return answer;
}
