// Around the map: colours and their key, the film under the pointer, the chosen one, search, selection.

const select = at("colour"), tip = at("tip"), film = at("film"), search = at("search"), found = at("found");
let column = null, keySelected = null;

function themed() {
  const style = getComputedStyle(document.documentElement), get = (name) => style.getPropertyValue(name).trim();
  shown.ink = get("--ink");
  shown.paper = get("--card");
  const missing = get("--none");
  if (!column) shown.palette = [get("--bar")];
  else if (column.codes) shown.palette = [...get("--colours").split(" ").slice(0, shown.colour.named), get("--rest"), missing];
  else shown.palette = [...rampOf(get("--ramp").split(" ")), missing];
  shown.version++;
}

function rampOf(stops) {
  const parts = stops.map((stop) => [1, 3, 5].map((i) => parseInt(stop.slice(i, i + 2), 16)));
  return Array.from({ length: STEPS }, (_, step) => {
    const where = step / (STEPS - 1) * (parts.length - 1), low = Math.min(parts.length - 2, Math.floor(where));
    return `rgb(${parts[low].map((value, i) => Math.round(value + (parts[low + 1][i] - value) * (where - low))).join(" ")})`;
  });
}

function colourBy(name) {
  column = columns.find((one) => one.name === name) || null;
  shown.colour = slotsOf(column);
  shown.hidden = new Set();
  themed();
  keyAll();
  redraw();
}

function countSlots(only) {
  const counts = new Uint32Array(shown.colour.total);
  for (let i = 0; i < num; i++) if (!only || only[i]) counts[shown.colour.slots[i]]++;
  return counts;
}

function keyAll() {
  const all = countSlots(null), some = shown.selected && countSlots(shown.selected), body = at("key-body");
  at("key-name").textContent = column ? column.name : "One colour";
  at("key-note").textContent = column ? (column.codes ? `${count(column.values.length)} values` : "numbers") : "";
  body.replaceChildren();
  if (!column) {
    make("p", { className: "soft empty", textContent: data.has_pictures || columns.length ? "Choose a column above to colour the films." : "Columns to colour by come with a manifest." }, body);
    return;
  }
  if (column.numbers) ramp(body, all, some);
  const list = make("ul", { className: "key" }, body);
  const entries = column.codes ? column.values.slice(0, shown.colour.named).map((value, slot) => [slot, value]) : [];
  if (column.codes && column.values.length > NAMED) entries.push([shown.colour.rest, `${count(column.values.length - NAMED)} other values`]);
  if (all[shown.colour.missing]) entries.push([shown.colour.missing, "missing"]);
  const most = Math.max(...all);
  for (const [slot, name] of entries) entry(list, { slot, name, all: all[slot], some: some && some[slot], most });
}

function entry(list, { slot, name, all, some, most }) {
  const button = make("button", { type: "button", title: `${name}: hide or show` }, make("li", {}, list));
  button.setAttribute("aria-pressed", String(!shown.hidden.has(slot)));
  make("span", { className: "dot" }, button).style.background = shown.palette[slot];
  make("em", name, button);
  const number = make("span", { className: "n" }, button);
  if (some === null || some === undefined) number.textContent = count(all);
  else { make("b", count(some), number); number.append(` of ${count(all)}`); }
  const bar = make("u", {}, make("span", { className: "share" }, button));
  bar.style.width = some === null || some === undefined ? `${100 * all / most}%` : `${100 * some / Math.max(1, all)}%`;
  bar.style.background = shown.palette[slot];
  button.addEventListener("click", () => {
    if (!shown.hidden.delete(slot)) shown.hidden.add(slot);
    shown.version++;
    button.setAttribute("aria-pressed", String(!shown.hidden.has(slot)));
    redraw();
  });
}

function ramp(body, all, some) {
  const counts = (some || all).subarray(0, STEPS), most = Math.max(1, ...counts), bars = make("div", { className: "bars" }, body);
  counts.forEach((value, slot) => {
    const bar = make("i", { title: `${count(value)} films` }, bars);
    bar.style.height = `${value ? Math.max(4, 100 * value / most) : 0}%`;
    bar.style.background = shown.palette[slot];
  });
  const ends = make("div", { className: "ends" }, body);
  make("span", `≤ ${figure(column.low)}`, ends);
  make("span", `median ${figure(medianOf(shown.selected))}`, ends);
  make("span", `≥ ${figure(column.high)}`, ends);
}

function medianOf(only) {
  const values = column.numbers.filter((value, i) => !Number.isNaN(value) && (!only || only[i])).sort();
  if (!values.length) return NaN;
  return (values[(values.length - 1) >> 1] + values[values.length >> 1]) / 2;
}

// The film under the pointer.
let resting = 0;
listeners.hover = (row, x, y) => {
  if (row < 0) { tip.hidden = true; clearTimeout(resting); tip.dataset.film = ""; return; }
  if (tip.dataset.film !== String(row)) {
    tip.dataset.film = row;
    tip.querySelector("b").textContent = data.ids[row];
    tip.querySelector(":scope > span").textContent = column ? `${column.name}: ${valueOf(column, row)}` : "";
    const shot = tip.querySelector(".shot");
    shot.hidden = !data.has_pictures;
    clearTimeout(resting);
    if (data.has_pictures) {
      shot.replaceChildren();
      resting = setTimeout(() => showPicture(shot, row, "small"), 60);  // a pointer in passing asks for nothing
    }
  }
  tip.hidden = false;
  const { offsetWidth: width, offsetHeight: height } = tip, gap = 16;
  tip.style.left = `${x + gap + width > view.width ? Math.max(4, x - gap - width) : x + gap}px`;
  tip.style.top = `${Math.max(4, Math.min(y - height / 2, view.height - height - 4))}px`;
};

// The chosen film: large, its neighbours, its row.
async function choose(row, { move = false } = {}) {
  if (row < 0) return;
  Object.assign(shown, { chosen: row, near: [] });
  if (move) goTo(row);
  redraw();
  film.replaceChildren();
  const line = make("div", { className: "line" }, film);
  make("h2", data.ids[row], line);
  if (data.has_pictures) {
    const button = make("button", { type: "button", className: "whole", title: "The whole film" }, film);
    const shot = make("div", { className: "shot" }, button);
    showPicture(shot, row, "large");
    button.addEventListener("click", () => enlarge(row));
  }
  try {
    const about = await rowOf(row);
    if (shown.chosen !== row) return;
    shown.near = about.neighbours;
    showNeighbours(about);
    showFields(about.fields);
  } catch (error) {
    make("p", { className: "soft", textContent: error instanceof TypeError ? "The server has ended. Start it again and load this page anew." : error.message }, film);
  }
  redraw();
}

function showNeighbours({ neighbours, similarity }) {
  const title = make("h3", neighbours.length ? "Nearest films" : "No other film", film);
  if (neighbours.length) make("small", "cosine of the features", title);
  const grid = make("div", { className: "near" }, film);
  neighbours.forEach((row, i) => {
    const button = make("button", { type: "button", title: data.ids[row] }, grid);
    button.dataset.film = row;
    const shot = make("div", { className: "shot" }, button);
    if (data.has_pictures) showPicture(shot, row, "small"); else make("span", data.ids[row], shot);
    const under = make("span", { className: "n" }, button);
    make("i", {}, under).style.background = shown.palette[shown.colour.slots[row]];
    under.append(similarity[i].toFixed(3));
    button.addEventListener("click", () => choose(row, { move: true }));
    button.addEventListener("pointerenter", () => { shown.hovered = row; redraw(); });
    button.addEventListener("pointerleave", () => { shown.hovered = -1; redraw(); });
  });
}

function showFields(fields) {
  if (!fields.length) return;
  make("h3", "Its row", film);
  const table = make("table", {}, film);
  for (const [name, value] of fields) {
    const line = make("tr", {}, table);
    make("td", name, line);
    make("td", value, line);
  }
}

function enlarge(row) {
  const dialog = at("large"), shot = dialog.querySelector(".shot");
  shot.replaceChildren();
  dialog.querySelector("p").textContent = data.ids[row];
  showPicture(shot, row, "large");
  dialog.showModal();
}
at("large").addEventListener("click", (event) => { if (event.target === at("large")) at("large").close(); });

listeners.choose = (row) => {
  choose(row);
  if (row >= 0 && matchMedia("(max-width: 860px)").matches) film.scrollIntoView({ behavior: "smooth" });
};

// Search.
let lower = null, matches = [], marked = 0;
const MOST_FOUND = 8;

function look() {
  const wanted = search.value.trim().toLowerCase();
  found.replaceChildren();
  matches = [];
  marked = 0;
  found.hidden = !wanted;
  search.setAttribute("aria-expanded", String(Boolean(wanted)));
  if (!wanted) return;
  lower ||= data.ids.map((id) => id.toLowerCase());
  const starts = [], inside = [];
  for (let i = 0; i < num && starts.length < MOST_FOUND; i++) {
    const where = lower[i].indexOf(wanted);
    if (where === 0) starts.push(i); else if (where > 0 && inside.length < MOST_FOUND) inside.push(i);
  }
  matches = [...starts, ...inside].slice(0, MOST_FOUND);
  for (const row of matches) {
    const line = make("li", { textContent: data.ids[row], id: `found-${row}` }, found);
    line.setAttribute("role", "option");
    line.addEventListener("pointerdown", (event) => { event.preventDefault(); take(row); });
  }
  if (!matches.length) make("li", { className: "none", textContent: "No film has this in its id." }, found);
  mark(0);
}

function mark(place) {
  marked = matches.length ? (place + matches.length) % matches.length : 0;
  [...found.children].forEach((line, i) => line.setAttribute("aria-selected", String(matches.length > 0 && i === marked)));
  if (matches.length) search.setAttribute("aria-activedescendant", `found-${matches[marked]}`);
}

function take(row) {
  found.hidden = true;
  search.setAttribute("aria-expanded", "false");
  search.value = data.ids[row];
  choose(row, { move: true });
}

search.addEventListener("input", look);
search.addEventListener("focus", () => { if (search.value && !matches.includes(shown.chosen)) look(); });
search.addEventListener("blur", () => { found.hidden = true; });
search.addEventListener("keydown", (event) => {
  if (event.key === "ArrowDown") mark(marked + 1);
  else if (event.key === "ArrowUp") mark(marked - 1);
  else if (event.key === "Enter" && matches.length) take(matches[marked]);
  else if (event.key === "Escape") found.hidden = true;
  else return;
  event.preventDefault();
  event.stopPropagation();
});

// Selection.
listeners.select = (rows) => {
  const total = rows.reduce((sum, one) => sum + one, 0);
  shown.selected = total ? rows : null;
  shown.version++;
  at("selection").hidden = !total;
  at("selection-count").textContent = total ? `${count(total)} of ${plural(num)} selected` : "";
  keyAll();
  redraw();
};

function save() {
  const quoted = (id) => (/[",\r\n]/.test(id) ? `"${id.replaceAll('"', '""')}"` : id);
  const lines = ["image_id"];
  for (let i = 0; i < num; i++) if (shown.selected && shown.selected[i]) lines.push(quoted(data.ids[i]));
  const link = make("a", { download: "selection.csv", href: URL.createObjectURL(new Blob([lines.join("\n"), "\n"], { type: "text/csv" })) });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

at("save").addEventListener("click", save);
at("drop").addEventListener("click", () => listeners.select(new Uint8Array(num)));
for (const button of document.querySelectorAll("[data-tool]")) {
  button.addEventListener("click", () => {
    tool = button.dataset.tool;
    canvas.classList.toggle("draws", tool !== "move");
    for (const one of document.querySelectorAll("[data-tool]")) one.setAttribute("aria-pressed", String(one === button));
  });
}
for (const button of document.querySelectorAll("[data-zoom]")) {
  button.addEventListener("click", () => (Number(button.dataset.zoom) ? zoom(Number(button.dataset.zoom)) : fit()));
}
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || at("large").open) return;
  if (shown.selected) return listeners.select(new Uint8Array(num));
  Object.assign(shown, { chosen: -1, near: [] });
  redraw();
});

for (const one of [{ name: "" }, ...columns]) make("option", { value: one.name, textContent: one.name || "one colour" }, select);
select.value = data.colour;
select.addEventListener("change", () => colourBy(select.value));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { themed(); keyAll(); redraw(); });
colourBy(data.colour);

// An address that ends in #film=ID opens with this film.
const asked = data.ids.indexOf(decodeURIComponent((location.hash.match(/^#film=(.*)$/) || [])[1] || ""));
if (asked >= 0) choose(asked);
document.documentElement.dataset.ready = "true";
