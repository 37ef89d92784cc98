"use strict";
// What the page was given, unpacked; and the two ways to ask for more: a server, or files beside the page.

const data = JSON.parse(document.getElementById("data").textContent);
const num = data.num_films;
const at = (id) => document.getElementById(id);
const count = (n) => n.toLocaleString("en");
const plural = (n) => `${count(n)} film${n === 1 ? "" : "s"}`;
const MISSING = 65535, NAMED = 10, STEPS = 32;

function unpack(text, Kind) {
  const raw = atob(text), bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return new Kind(bytes.buffer);
}

function make(tag, words, parent) {
  const one = document.createElement(tag);
  if (typeof words === "string") one.textContent = words; else Object.assign(one, words);
  if (parent) parent.append(one);
  return one;
}

const spread = (packed) => Float32Array.from(unpack(packed, Uint16Array), (step) => step / 65535);
const xs = spread(data.x), ys = spread(data.y);
const columns = data.columns.map((column) => ({
  ...column,
  codes: column.codes && unpack(column.codes, Uint16Array),
  numbers: column.numbers && unpack(column.numbers, Float32Array),
}));

// Films are drawn in a fixed disorder, so that no group lies on top of the others because it comes last in the file.
const order = Uint32Array.from({ length: num }, (_, i) => i);
for (let i = num - 1, seed = 1; i > 0; i--) {
  seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
  const j = Math.floor(seed / 4294967296 * (i + 1));
  [order[i], order[j]] = [order[j], order[i]];
}

// Slots: what a film is coloured as. Of a category its ten first values, the rest, missing; of numbers steps, missing.
function slotsOf(column) {
  const slots = new Uint8Array(num);
  if (!column) return { slots, rest: 0, missing: 0, total: 1 };
  if (column.codes) {
    const named = Math.min(column.values.length, NAMED), rest = named, missing = named + 1;
    for (let i = 0; i < num; i++) {
      const code = column.codes[i];
      slots[i] = code === MISSING ? missing : Math.min(code, rest);
    }
    return { slots, named, rest, missing, total: named + 2 };
  }
  const width = (column.high - column.low) || 1;
  for (let i = 0; i < num; i++) {
    const value = column.numbers[i];
    slots[i] = Number.isNaN(value) ? STEPS
      : Math.max(0, Math.min(STEPS - 1, Math.floor((value - column.low) / width * STEPS)));
  }
  return { slots, missing: STEPS, total: STEPS + 1 };
}

function figure(value) {
  if (Number.isInteger(value)) return Math.abs(value) < 10000 ? String(value) : count(value);
  return Number(value.toPrecision(4)).toLocaleString("en", { maximumSignificantDigits: 4 });
}

function valueOf(column, i) {
  if (!column) return "";
  if (column.codes) return column.codes[i] === MISSING ? "missing" : column.values[column.codes[i]];
  return Number.isNaN(column.numbers[i]) ? "missing" : figure(column.numbers[i]);
}

// Pictures: from the server as bytes, so that a reason can come instead; else files.
const held = new Map(), HELD = 400;

async function fetchPicture(row, size) {
  const answer = await fetch(`film/${row}/${size}`);
  if (!answer.ok) throw new Error(await answer.text());
  return URL.createObjectURL(await answer.blob());
}

function pictureOf(row, size) {
  if (!data.has_pictures) return Promise.reject(new Error("no picture: opened without a manifest"));
  if (!data.live) {
    const why = data.absent[row];
    return why ? Promise.reject(new Error(why)) : Promise.resolve(`films/${row}.jpg`);
  }
  const key = `${row}/${size}`;
  const found = held.get(key) || fetchPicture(row, size);
  held.delete(key);
  held.set(key, found);
  if (held.size > HELD) {
    const [oldest, promise] = held.entries().next().value;
    held.delete(oldest);
    promise.then((url) => setTimeout(() => URL.revokeObjectURL(url), 5000), () => {});
  }
  return found;
}

async function showPicture(place, row, size) {
  place.dataset.row = row;
  try {
    const image = new Image();
    image.alt = `film ${data.ids[row]}`;
    image.draggable = false;
    image.src = await pictureOf(row, size);
    await image.decode();
    if (place.dataset.row === String(row)) place.replaceChildren(image);
  } catch (error) {
    const lost = error instanceof TypeError ? "the server has ended" : error.name === "EncodingError" ? "the picture is not there" : error.message;
    if (error instanceof TypeError) held.delete(`${row}/${size}`);
    const short = place.closest(".near") ? "no picture" : lost;  // there is room for no more between neighbours
    if (place.dataset.row === String(row)) place.replaceChildren(make("span", short));
  }
}

async function rowOf(row) {
  if (data.live) {
    const answer = await fetch(`row/${row}`);
    if (!answer.ok) throw new Error(await answer.text());
    return answer.json();
  }
  rowOf.rows ||= unpack(data.neighbours, Uint32Array);
  rowOf.values ||= unpack(data.similarity, Int16Array);
  const [from, to] = [row * data.count, (row + 1) * data.count];
  return {
    fields: columns.map((column) => [column.name, valueOf(column, row)]).filter(([, value]) => value !== "missing"),
    neighbours: [...rowOf.rows.subarray(from, to)],
    similarity: [...rowOf.values.subarray(from, to)].map((value) => value / 10000),
  };
}
