"use strict";
// Without this script everything is there but the values under the pointer, hiding a run, and the looks between first and last.
(() => {
  const LEFT = 54, WIDE = 408, NEAR = 12;
  const svgs = [...document.querySelectorAll("figure.chart svg")];
  const names = [...document.querySelectorAll("[data-run-name]")].map((one) => one.dataset.runName);
  const points = new WeakMap();
  const pointsOf = (line) => {
    if (!points.has(line)) points.set(line, JSON.parse(line.dataset.points));
    return points.get(line);
  };
  const nearest = (list, x) => {
    let low = 0, high = list.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (list[middle][0] < x) low = middle + 1; else high = middle;
    }
    return low > 0 && x - list[low - 1][0] < list[low][0] - x ? low - 1 : low;
  };
  const number = (value) => {
    const size = Math.abs(value);
    if (size !== 0 && (size < 1e-3 || size >= 1e9)) return value.toExponential(2);
    return value.toLocaleString("en", { maximumSignificantDigits: 5 });
  };
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  const cross = (x) => svgs.forEach((svg) => {
    const line = svg.querySelector(".cross");
    line.style.visibility = x === null ? "hidden" : "visible";
    if (x !== null) { line.setAttribute("x1", x); line.setAttribute("x2", x); }
  });
  const show = (svg, x) => {
    const lines = [...svg.querySelectorAll("[data-points]")].filter((line) => !line.closest(".gone"));
    const rows = [];
    let at = null;
    for (const line of lines) {
      const list = pointsOf(line);
      const found = list[nearest(list, x)];
      // a run that ended long before, or began long after, has nothing to say here
      if (lines.length > 1 && (x > list[list.length - 1][0] + NEAR || x < list[0][0] - NEAR)) continue;
      if (at === null || Math.abs(found[0] - x) < Math.abs(at[0] - x)) at = found;
      rows.push([line, found]);
    }
    if (at === null) return;
    tip.replaceChildren();
    const head = document.createElement("div");
    head.textContent = `step ${at[1].toLocaleString("en")}`;
    tip.append(head);
    for (const [line, found] of rows) {
      const row = document.createElement("div"), chip = document.createElement("i"), range = document.createElement("small");
      row.className = line.dataset.colour;
      row.append(chip, number(found[2]));
      if (found.length > 3) range.textContent = ` ${number(found[3])} to ${number(found[4])}`;
      row.append(range);
      if (names.length > 1) row.append(` ${names[Number(line.dataset.run)]}`);
      if (found[1] !== at[1]) range.textContent += ` at ${found[1].toLocaleString("en")}`;
      tip.append(row);
    }
    cross(at[0]);
    svg.closest("figure").append(tip);
    tip.hidden = false;
    const box = svg.getBoundingClientRect(), figure = svg.closest("figure").getBoundingClientRect();
    const left = box.left - figure.left + ((at[0] + LEFT) / WIDE) * box.width;
    tip.style.left = `${Math.max(4, left > figure.width / 2 ? left - tip.offsetWidth - 12 : left + 12)}px`;
    tip.style.top = `${box.top - figure.top + 6}px`;
    svg.dataset.at = at[0];
  };
  const hide = () => { tip.hidden = true; cross(null); };
  for (const svg of svgs) {
    const read = (event) => {
      const box = svg.getBoundingClientRect();
      show(svg, ((event.clientX - box.left) / box.width) * WIDE - LEFT);
    };
    svg.addEventListener("pointermove", read);
    svg.addEventListener("pointerdown", read);
    // what a finger has touched stays until it touches elsewhere
    svg.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") hide(); });
    svg.addEventListener("blur", hide);
    svg.addEventListener("keydown", (event) => {
      const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key], line = svg.querySelector("[data-points]");
      if (!move || !line) return;
      event.preventDefault();
      const list = pointsOf(line), last = list.length - 1;
      const at = svg.dataset.at === undefined ? (move > 0 ? 0 : last) : nearest(list, Number(svg.dataset.at)) + move;
      show(svg, list[Math.min(last, Math.max(0, at))][0]);
    });
  }
  addEventListener("pointerdown", (event) => { if (!event.target.closest("figure.chart")) hide(); });
  addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
  const ofRun = (run) => document.querySelectorAll(`svg [data-of="${run}"]`);
  for (const button of document.querySelectorAll(".legend button")) {
    const run = button.dataset.run;
    button.addEventListener("click", () => {
      const isOn = button.getAttribute("aria-pressed") === "true";
      button.setAttribute("aria-pressed", String(!isOn));
      ofRun(run).forEach((one) => one.classList.toggle("gone", isOn));
    });
    const dim = (isDim) => names.forEach((_, other) => {
      if (String(other) !== run) ofRun(other).forEach((one) => one.classList.toggle("dim", isDim));
    });
    button.addEventListener("pointerenter", () => dim(true));
    button.addEventListener("pointerleave", () => dim(false));
  }
  for (const player of document.querySelectorAll(".player")) {
    const range = player.querySelector("input"), label = player.querySelector("b"), button = player.querySelector("button");
    const steps = JSON.parse(player.dataset.steps), places = JSON.parse(player.dataset.places), told = JSON.parse(player.dataset.told);
    const maps = player.parentElement.querySelectorAll(".looks u");
    const turn = () => {
      const at = Number(range.value);
      label.textContent = `step ${steps[at].toLocaleString("en")}`;
      player.querySelector("span").textContent = told.length ? `hidden patches predicted ${told[at].toFixed(2)}` : "";
      maps.forEach((map) => { map.style.backgroundPosition = places[at]; });
    };
    player.hidden = false;
    range.addEventListener("input", turn);
    let clock = null;
    const stop = () => { clearInterval(clock); clock = null; button.textContent = "play"; };
    button.addEventListener("click", () => {
      if (clock !== null) { stop(); return; }
      if (Number(range.value) === steps.length - 1) range.value = 0;
      button.textContent = "pause";
      clock = setInterval(() => {
        range.value = Number(range.value) + 1;
        turn();
        if (Number(range.value) >= steps.length - 1) stop();
      }, 400);
    });
    turn();
  }
  // A page that is written again while a run goes on loads itself: what was opened, hidden and chosen stays so.
  const KEEP = `dinov2 report ${location.pathname}`;
  const ranges = [...document.querySelectorAll(".player input")], folded = [...document.querySelectorAll("details")];
  const buttons = [...document.querySelectorAll(".legend button")];
  const reloads = document.querySelector('meta[http-equiv="refresh"]') !== null;
  try {
    const kept = JSON.parse(sessionStorage.getItem(KEEP) ?? "null");
    if (kept !== null) {
      sessionStorage.removeItem(KEEP);
      folded.forEach((one) => { const at = kept.folded.find(([name]) => name === one.dataset.name); if (at) one.open = at[1]; });
      buttons.forEach((one) => { if (kept.hidden.includes(names[Number(one.dataset.run)])) one.click(); });
      ranges.forEach((one, i) => {
        if (kept.looks[i] === undefined || kept.looks[i] === null) return;
        one.value = kept.looks[i];
        one.dispatchEvent(new Event("input"));
      });
      scrollTo(0, kept.top);
    }
    if (reloads) addEventListener("pagehide", () => sessionStorage.setItem(KEEP, JSON.stringify({
      top: scrollY,
      folded: folded.map((one) => [one.dataset.name, one.open]),
      hidden: buttons.filter((one) => one.getAttribute("aria-pressed") === "false").map((one) => names[Number(one.dataset.run)]),
      // the newest look stays the newest
      looks: ranges.map((one) => (one.value === one.max ? null : Number(one.value))),
    })));
  } catch { /* a browser that keeps nothing for files begins at the top again */ }
})();
