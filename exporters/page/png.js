// PNG pictures read to the last bit, and masks written (PNG specification, third edition). A canvas would not do: it
// multiplies colours with alpha, applies profiles, and some browsers add noise to what is read back.

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];
const GREY = 0, RGB = 2, INDEXED = 3, GREY_ALPHA = 4, RGB_ALPHA = 6;
// By colour type: values per pixel, and depths that the specification allows.
const KINDS = {
  [GREY]: [1, [1, 2, 4, 8, 16]], [RGB]: [3, [8, 16]], [INDEXED]: [1, [1, 2, 4, 8]],
  [GREY_ALPHA]: [2, [8, 16]], [RGB_ALPHA]: [4, [8, 16]],
};
// Adam7: first column and row, steps.
const PASSES = [
  [0, 0, 8, 8], [4, 0, 8, 8], [0, 4, 4, 8], [2, 0, 4, 4], [0, 2, 2, 4], [1, 0, 2, 2], [0, 1, 1, 2],
];
const ORIENTATION = 0x0112;
const CRCS = Uint32Array.from({ length: 256 }, (_, value) => {
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value >>> 0;
});

export function crc32(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = CRCS[(crc ^ byte) & 255] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

export function isPng(bytes) {
  return SIGNATURE.every((value, at) => bytes[at] === value);
}

/** The sides of a PNG, from its header alone. */
export function pngSides(bytes) {
  const view = viewOf(bytes);
  if (bytes.length < 33 || view.getUint32(12) !== 0x49484452) throw new Error("the PNG has no header");
  return { width: view.getUint32(16), height: view.getUint32(20) };
}

/** Pixels as stored, without alpha: { width, height, channels, data }, 16-bit where the picture is. */
export async function decodePng(bytes) {
  const chunks = chunksOf(bytes);
  const { width, height } = pngSides(bytes);
  const [depth, kind, , , interlaced] = bytes.subarray(24, 29);
  if (!KINDS[kind]?.[1].includes(depth) || !width || !height) throw new Error("the PNG has a damaged header");
  if (chunks.eXIf && ![0, 1].includes(orientationOf(chunks.eXIf[0]))) {
    throw new Error("the picture is stored turned (EXIF): save it upright");
  }
  const values = KINDS[kind][0];
  const passes = interlaced ? PASSES : [[0, 0, 1, 1]];
  const parts = passes.map(([left, top, across, down]) => ({
    left, top, across, down, width: Math.ceil((width - left) / across), height: Math.ceil((height - top) / down),
  })).filter((part) => part.width > 0 && part.height > 0);
  const lineBytes = (part) => Math.ceil((part.width * values * depth) / 8);
  const total = parts.reduce((sum, part) => sum + part.height * (lineBytes(part) + 1), 0);
  const raw = await inflated(chunks.IDAT ?? [], total);
  const stored = depth === 16 ? new Uint16Array(width * height * values) : new Uint8Array(width * height * values);
  let at = 0;
  for (const part of parts) {
    const length = lineBytes(part);
    const block = raw.subarray(at, at + part.height * (length + 1));
    unfilter(block, length, Math.max(1, (values * depth) >> 3));
    spread(block, length, part, values, depth, width, stored);
    at += block.length;
  }
  return { width, height, ...shown(stored, kind, depth, chunks.PLTE?.[0]) };
}

/** An 8-bit palette PNG of labels, as the command writes it. */
export async function encodeLabels(labels, width, height, colours) {
  const lines = new Uint8Array(height * (width + 1)); // each begins with its filter: none
  for (let row = 0; row < height; row++) {
    lines.set(labels.subarray(row * width, (row + 1) * width), row * (width + 1) + 1);
  }
  const header = new Uint8Array(13);
  viewOf(header).setUint32(0, width);
  viewOf(header).setUint32(4, height);
  header.set([8, INDEXED, 0, 0, 0], 8);
  const packed = new Blob([lines]).stream().pipeThrough(new CompressionStream("deflate"));
  const data = new Uint8Array(await new Response(packed).arrayBuffer());
  const chunks = [["IHDR", header], ["PLTE", Uint8Array.from(colours.flat())], ["IDAT", data], ["IEND", new Uint8Array()]];
  return new Blob([Uint8Array.from(SIGNATURE), ...chunks.map(([name, body]) => chunk(name, body))], { type: "image/png" });
}

function viewOf(bytes) {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function chunk(name, body) {
  const made = new Uint8Array(body.length + 12);
  viewOf(made).setUint32(0, body.length);
  made.set([...name].map((letter) => letter.charCodeAt(0)), 4);
  made.set(body, 8);
  viewOf(made).setUint32(body.length + 8, crc32(made.subarray(4, body.length + 8)));
  return made;
}

function chunksOf(bytes) {
  const found = {}, view = viewOf(bytes);
  let at = SIGNATURE.length, name = "";
  while (name !== "IEND") {
    const length = at + 12 <= bytes.length ? view.getUint32(at) : Infinity;
    if (at + 12 + length > bytes.length) throw new Error("the PNG ends too early: copy it again");
    const body = bytes.subarray(at + 4, at + 8 + length);
    name = String.fromCharCode(...body.subarray(0, 4));
    if (crc32(body) !== view.getUint32(at + 8 + length)) throw new Error("the PNG is damaged: copy it again");
    (found[name] ??= []).push(body.subarray(4));
    at += 12 + length;
  }
  return found;
}

/** The EXIF orientation that TIFF tags state; 1 where they state none. */
function orientationOf(exif) {
  const view = viewOf(exif), little = exif[0] === 0x49;
  try {
    const start = view.getUint32(4, little);
    for (let entry = 0; entry < view.getUint16(start, little); entry++) {
      const at = start + 2 + 12 * entry;
      if (view.getUint16(at, little) === ORIENTATION) return view.getUint16(at + 8, little);
    }
  } catch { /* a damaged block states nothing */ }
  return 1;
}

/** The bytes that a zlib stream holds; no more than expected is ever kept. */
async function inflated(parts, total) {
  const reader = new Blob(parts).stream().pipeThrough(new DecompressionStream("deflate")).getReader();
  const held = new Uint8Array(total);
  let at = 0;
  try {
    for (let next = await reader.read(); !next.done && at < total; next = await reader.read()) {
      held.set(next.value.subarray(0, total - at), at);
      at += next.value.length;
    }
  } catch (error) {
    if (at < total) throw new Error(`the PNG is damaged (${error.message}): copy it again`);
  }
  reader.cancel().catch(() => {});
  if (at < total) throw new Error("the PNG holds too few pixels: copy it again");
  return held;
}

function unfilter(block, length, step) {
  for (let line = 0; line < block.length; line += length + 1) {
    const filter = block[line], above = line - length - 1;
    if (filter > 4) throw new Error("the PNG is damaged: copy it again");
    for (let at = 1; filter && at <= length; at++) {
      const left = at > step ? block[line + at - step] : 0;
      const up = line ? block[above + at] : 0;
      const corner = line && at > step ? block[above + at - step] : 0;
      const guess = filter === 1 ? left : filter === 2 ? up : filter === 3 ? (left + up) >> 1 : paeth(left, up, corner);
      block[line + at] += guess;
    }
  }
}

function paeth(left, up, corner) {
  const a = Math.abs(up - corner), b = Math.abs(left - corner), c = Math.abs(left + up - 2 * corner);
  return a <= b && a <= c ? left : b <= c ? up : corner;
}

/** Put the values of a pass where they belong. */
function spread(block, length, part, values, depth, width, stored) {
  const mask = (1 << depth) - 1;
  for (let row = 0; row < part.height; row++) {
    const line = row * (length + 1) + 1;
    for (let column = 0; column < part.width; column++) {
      const to = ((part.top + row * part.down) * width + part.left + column * part.across) * values;
      for (let value = 0; value < values; value++) {
        const at = column * values + value;
        if (depth === 8) stored[to + value] = block[line + at];
        else if (depth === 16) stored[to + value] = (block[line + 2 * at] << 8) | block[line + 2 * at + 1];
        else stored[to + value] = (block[line + ((at * depth) >> 3)] >> (8 - depth - ((at * depth) & 7))) & mask;
      }
    }
  }
}

/** What the engine makes of stored values: colours of a palette, no alpha, grey of 2 or 4 bits brought to 0..255. */
function shown(stored, kind, depth, palette) {
  if (kind === INDEXED) {
    const data = new Uint8Array(stored.length * 3);
    stored.forEach((index, at) => {
      if (!palette || 3 * index >= palette.length) throw new Error("the PNG has an index without a colour: save it again");
      data.set(palette.subarray(3 * index, 3 * index + 3), 3 * at);
    });
    return { channels: 3, data };
  }
  if (kind === GREY_ALPHA || kind === RGB_ALPHA) {
    const channels = kind === GREY_ALPHA ? 1 : 3;
    return { channels, data: stored.filter((_, at) => at % (channels + 1) < channels) };
  }
  const factor = { 2: 85, 4: 17 }[depth];
  return { channels: kind === RGB ? 3 : 1, data: factor ? stored.map((value) => value * factor) : stored };
}
