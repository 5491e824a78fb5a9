// A ZIP archive of files that are compressed already: stored as they are (APPNOTE 6.3, without ZIP64).

import { crc32 } from "./png.js";

const LOCAL = 0x04034b50, CENTRAL = 0x02014b50, END = 0x06054b50;
const STORED = 20, UTF8 = 0x0800, MOST_FILES = 0xffff, MOST_BYTES = 0xffffffff;
// 1 January 1980: the same files give the same archive.
const NO_DATE = 0x00210000;

/** Files by name, Blobs, as one Blob. */
export async function zip(files) {
  const parts = [], directory = [];
  let at = 0;
  for (const [name, blob] of files) {
    const body = new Uint8Array(await blob.arrayBuffer()), path = new TextEncoder().encode(name);
    const shared = [[2, UTF8], [2, 0], [4, NO_DATE], [4, crc32(body)], [4, body.length], [4, body.length], [2, path.length], [2, 0]];
    parts.push(fields([4, LOCAL], [2, STORED], ...shared), path, body);
    directory.push(fields([4, CENTRAL], [2, STORED], [2, STORED], ...shared, [2, 0], [2, 0], [2, 0], [4, 0], [4, at]), path);
    at += 30 + path.length + body.length;
  }
  const size = directory.reduce((sum, part) => sum + part.length, 0);
  if (files.length > MOST_FILES || at + size > MOST_BYTES) throw new Error("too much for one archive: save fewer masks at once");
  const end = fields([4, END], [2, 0], [2, 0], [2, files.length], [2, files.length], [4, size], [4, at], [2, 0]);
  return new Blob([...parts, ...directory, end], { type: "application/zip" });
}

function fields(...values) {
  const made = new Uint8Array(values.reduce((sum, [length]) => sum + length, 0)), view = new DataView(made.buffer);
  let at = 0;
  for (const [length, value] of values) {
    if (length === 4) view.setUint32(at, value, true);
    else view.setUint16(at, value, true);
    at += length;
  }
  return made;
}
