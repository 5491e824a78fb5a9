// A file to the pixels that the engine would read, or one plain sentence why not.

import { decodePng, isPng, pngSides } from "./png.js";

const MOST_PIXELS = 2 ** 26;
// ITU-R BT.601 luma with the rounding of the engine.
const LUMA = [19595, 38470, 7471];
const RGB = 3;

const sides = (height, width) => `${height} x ${width}`;

/** { width, height, data, exact }: data interleaved, as many channels as the ensemble takes. */
export async function readPicture(file, ensemble, alike) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const exact = isPng(bytes);
  if (exact) checkSides(pngSides(bytes), ensemble);
  const picture = exact ? await decodePng(bytes) : await decoded(bytes, ensemble);
  if (picture.data instanceof Uint16Array && ensemble.kind === "uint8") {
    throw new Error("the picture has 16 bits per value, the ensemble takes 8: save it with 8");
  }
  return { ...withChannels(picture, ensemble.channels, alike), exact };
}

/** Interleaved RGBA of 8 bits, for a canvas. */
export function asRgba({ width, height, channels, data }) {
  const rgba = new Uint8ClampedArray(width * height * 4).fill(255);
  const shift = data instanceof Uint16Array ? 8 : 0;
  for (let at = 0; at < width * height; at++) {
    for (let channel = 0; channel < 3; channel++) {
      rgba[4 * at + channel] = data[at * channels + (channels === RGB ? channel : 0)] >> shift;
    }
  }
  return rgba;
}

function checkSides({ width, height }, { size }) {
  if (size && (size[0] !== height || size[1] !== width)) {
    throw new Error(
      `the picture has ${sides(height, width)} pixels (height x width), the ensemble takes ${sides(...size)}: cut it, ` +
      "or use engine ensemble --tile, which cuts and joins"
    );
  }
  if (width * height > MOST_PIXELS) {
    throw new Error(`${sides(height, width)} pixels are too many for a page: use engine ensemble --tile`);
  }
}

/** What the browser decodes: JPEG, WebP, BMP. */
async function decoded(bytes, ensemble) {
  const type = typeOf(bytes);
  if (!type) throw new Error("not a PNG, JPEG, WebP or BMP: save it as PNG");
  const options = { colorSpaceConversion: "none", premultiplyAlpha: "none" };
  let bitmap;
  try {
    bitmap = await createImageBitmap(new Blob([bytes], { type }), options);
  } catch {
    throw new Error("the browser cannot decode it: save it as PNG");
  }
  const { width, height } = bitmap;
  checkSides(bitmap, ensemble);
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const rgba = context.getImageData(0, 0, width, height).data;
  for (let at = 3; at < rgba.length; at += 4) {
    if (rgba[at] !== 255) throw new Error("parts of the picture are transparent: save it as PNG");
  }
  const channels = type === "image/jpeg" ? componentsOf(bytes) : RGB;
  const data = new Uint8Array(width * height * channels);
  for (let at = 0; at < data.length; at++) {
    data[at] = rgba[channels === RGB ? 4 * Math.floor(at / RGB) + (at % RGB) : 4 * at];
  }
  return { width, height, channels, data };
}

function typeOf(bytes) {
  const text = String.fromCharCode(...bytes.subarray(0, 12));
  if (text.startsWith("\xff\xd8\xff")) return "image/jpeg";
  if (text.startsWith("BM")) return "image/bmp";
  return text.startsWith("RIFF") && text.endsWith("WEBP") ? "image/webp" : "";
}

/** 1 for a grey JPEG, else 3: its frame header says so. */
function componentsOf(bytes) {
  for (let at = 2; at + 9 < bytes.length; at += 2 + ((bytes[at + 2] << 8) | bytes[at + 3])) {
    const marker = bytes[at + 1];
    if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker)) return bytes[at + 9] === 1 ? 1 : RGB;
  }
  return RGB;
}

function withChannels(picture, wanted, alike) {
  const { channels, data } = picture;
  if (channels === wanted) return picture;
  if (wanted === RGB) {
    if (!alike) throw new Error("the picture is grey, the ensemble takes colours: tick “Grey as RGB” to repeat it");
    return { ...picture, channels: wanted, data: made(data, data.length * RGB, (at) => data[Math.floor(at / RGB)]) };
  }
  const equal = data.every((value, at) => value === data[at - (at % RGB)]);
  if (!equal && !alike) throw new Error("the picture has colours, the ensemble takes grey: tick “RGB as grey” to convert it");
  const luma = (at) => LUMA.reduce((sum, part, channel) => sum + part * data[RGB * at + channel], 2 ** 15) >>> 16;
  return { ...picture, channels: 1, data: made(data, data.length / RGB, equal ? (at) => data[RGB * at] : luma) };
}

function made(like, length, value) {
  const data = new like.constructor(length);
  for (let at = 0; at < length; at++) data[at] = value(at);
  return data;
}
