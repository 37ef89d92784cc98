"use strict";
// Cosine similarity of a chosen patch to all others, from tokens kept as a byte a component.
const data = JSON.parse(document.getElementById("data").textContent);
const { films, rows, columns, dimensions, scale, mean, stops } = data;
const patches = rows * columns;
const codes = new Int8Array(Uint8Array.from(atob(data.codes), (letter) => letter.charCodeAt(0)).buffer);
const figures = [...document.querySelectorAll("#picks figure")];
const told = document.getElementById("told");
const centred = document.getElementById("centred");
const strength = document.getElementById("strength");
let chosen = { film: data.start[0], patch: data.start[1] };
let similarity = new Float32Array(films * patches);

// Unit vectors of all tokens, [films * patches, dimensions + 1]; without the mean the last coordinate is 0.
function units(withMean) {
  const wide = dimensions + 1;
  const vectors = new Float32Array(films * patches * wide);
  for (let token = 0; token < films * patches; token++) {
    let square = 0;
    for (let d = 0; d < wide; d++) {
      const away = d < dimensions ? codes[token * dimensions + d] * scale[d] : 0;
      const value = away + (withMean ? mean[d] : 0);
      vectors[token * wide + d] = value;
      square += value * value;
    }
    const length = Math.sqrt(square) || 1;
    for (let d = 0; d < wide; d++) vectors[token * wide + d] /= length;
  }
  return vectors;
}
const known = new Map();
function unitsOnce(withMean) {
  if (!known.has(withMean)) known.set(withMean, units(withMean));
  return known.get(withMean);
}

function compare() {
  const wide = dimensions + 1;
  const vectors = unitsOnce(!centred.checked);
  const from = (chosen.film * patches + chosen.patch) * wide;
  const query = vectors.subarray(from, from + wide);
  for (let token = 0; token < films * patches; token++) {
    let sum = 0;
    for (let d = 0; d < wide; d++) sum += vectors[token * wide + d] * query[d];
    similarity[token] = sum;
  }
}

function colour(share) {
  const place = Math.min(0.99999, Math.max(0, share)) * (stops.length - 1);
  const i = Math.floor(place);
  return [0, 1, 2].map((c) => stops[i][c] + (stops[i + 1][c] - stops[i][c]) * (place - i));
}

const where = (patch) => `row ${Math.floor(patch / columns) + 1}, column ${(patch % columns) + 1}`;

function mark(figure, patch, isChosen) {
  const svg = figure.querySelector("svg");
  svg.replaceChildren();
  for (const name of isChosen ? ["edge", "inner"] : ["inner"]) {
    const box = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    const at = { x: patch % columns, y: Math.floor(patch / columns), width: 1, height: 1, class: name };
    for (const [key, value] of Object.entries(at)) box.setAttribute(key, value);
    svg.append(box);
  }
}

function draw() {
  compare();
  const sorted = Float32Array.from(similarity).sort();
  const low = sorted[Math.floor(0.02 * (sorted.length - 1))];
  document.getElementById("low").textContent = low.toFixed(2);
  document.getElementById("high").textContent = "1.00";
  figures.forEach((figure, film) => {
    const canvas = figure.querySelector("canvas");
    const context = canvas.getContext("2d");
    const image = context.createImageData(columns, rows);
    let best = -1;
    for (let patch = 0; patch < patches; patch++) {
      const value = similarity[film * patches + patch];
      const [red, green, blue] = colour((value - low) / Math.max(1e-6, 1 - low));
      image.data.set([red, green, blue, 255], 4 * patch);
      const isItself = film === chosen.film && patch === chosen.patch;
      if (!isItself && (best < 0 || value > similarity[film * patches + best])) best = patch;
    }
    context.putImageData(image, 0, 0);
    const isChosen = film === chosen.film;
    figure.classList.toggle("chosen", isChosen);
    mark(figure, isChosen ? chosen.patch : best, isChosen);
    const value = best < 0 ? "" : similarity[film * patches + best].toFixed(3);
    figure.querySelector(".best").textContent = best < 0 ? "" : `${isChosen ? "next best" : "best"} ${value}: ${where(best)}`;
  });
  tell(chosen.film, chosen.patch);
}

function tell(film, patch) {
  const here = `${data.names[chosen.film]}, ${where(chosen.patch)}`;
  const isItself = film === chosen.film && patch === chosen.patch;
  const value = similarity[film * patches + patch].toFixed(3);
  told.textContent = isItself ? `Chosen: ${here}` : `${value} to ${data.names[film]}, ${where(patch)}`;
}

function choose(film, patch, isKept) {
  chosen = { film, patch };
  draw();
  if (isKept) history.replaceState(null, "", `#film=${film + 1}&patch=${patch + 1}${centred.checked ? "&centred=1" : ""}`);
}

function patchUnder(event, figure) {
  const box = figure.querySelector("canvas").getBoundingClientRect();
  const clamp = (share, most) => Math.min(most - 1, Math.max(0, Math.floor(share * most)));
  return clamp((event.clientY - box.top) / box.height, rows) * columns + clamp((event.clientX - box.left) / box.width, columns);
}

const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
figures.forEach((figure, film) => {
  const button = figure.querySelector("button");
  button.addEventListener("click", (event) => {
    if (event.detail > 0) choose(film, patchUnder(event, figure), true);
    else if (film !== chosen.film) choose(film, chosen.patch, true); // Enter
  });
  button.addEventListener("pointermove", (event) => tell(film, patchUnder(event, figure)));
  button.addEventListener("pointerleave", () => tell(chosen.film, chosen.patch));
  button.addEventListener("keydown", (event) => {
    const move = moves[event.key];
    if (!move || film !== chosen.film) return;
    event.preventDefault();
    const row = Math.min(rows - 1, Math.max(0, Math.floor(chosen.patch / columns) + move[0]));
    const column = Math.min(columns - 1, Math.max(0, (chosen.patch % columns) + move[1]));
    choose(film, row * columns + column, true);
  });
});

function fade() {
  for (const figure of figures) figure.querySelector("canvas").style.opacity = strength.value / 100;
}
strength.addEventListener("input", fade);
centred.addEventListener("change", () => choose(chosen.film, chosen.patch, true));

function fromAddress() {
  const words = new URLSearchParams(location.hash.slice(1));
  const within = (word, most, otherwise) => {
    const number = Number.parseInt(words.get(word) ?? "", 10);
    return number >= 1 && number <= most ? number - 1 : otherwise;
  };
  centred.checked = words.get("centred") === "1";
  choose(within("film", films, chosen.film), within("patch", patches, chosen.patch), false);
}
window.addEventListener("hashchange", fromAddress);
fade();
fromAddress();
