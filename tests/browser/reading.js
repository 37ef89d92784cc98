// How a page reads: one line a fault, each with the text that has it. Measured as it lies there, not as it was meant.
({ smallest, contrast, largeContrast }) => {
  const faults = new Map();
  const tell = (kind, what, element) => {
    const name = element.tagName.toLowerCase() + (element.id ? `#${element.id}` : "") + [...element.classList].map((one) => `.${one}`).join("");
    const line = `${kind}: ${what} in ${name}`;
    faults.set(line, (faults.get(line) || 0) + 1);
  };
  const root = document.documentElement, wide = root.clientWidth;
  const styles = new Map();
  const styleOf = (element) => {
    if (!styles.has(element)) styles.set(element, getComputedStyle(element));
    return styles.get(element);
  };
  const upwards = function* (element) { for (let one = element; one; one = one.parentElement) yield one; };

  // Colours of every notation as numbers, by painting one dot.
  const dot = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d", { willReadFrequently: true });
  const known = new Map();
  const colour = (text) => {
    if (!known.has(text)) {
      dot.clearRect(0, 0, 1, 1);
      dot.fillStyle = text;
      dot.fillRect(0, 0, 1, 1);
      const [red, green, blue, alpha] = dot.getImageData(0, 0, 1, 1).data;
      known.set(text, [red, green, blue, alpha / 255]);
    }
    return known.get(text);
  };
  const over = (front, back) => [0, 1, 2].map((i) => front[i] * front[3] + back[i] * (1 - front[3])).concat(1);
  const light = (one) => [0.2126, 0.7152, 0.0722].reduce((sum, share, i) => {
    const value = one[i] / 255;
    return sum + share * (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  }, 0);
  const ratio = (one, two) => {
    const [low, high] = [light(one), light(two)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  // What lies behind an element; null where it is a picture or a gradient, of which no one colour can be said.
  const behind = (element) => {
    const layers = [];
    for (const one of upwards(element)) {
      const style = styleOf(one), back = colour(style.backgroundColor);
      if (style.backgroundImage !== "none") return null;
      layers.push(back);
      if (back[3] === 1) break;
    }
    const canvas = styleOf(root).colorScheme.includes("dark") && matchMedia("(prefers-color-scheme: dark)").matches ? [18, 18, 18, 1] : [255, 255, 255, 1];
    return layers.reverse().reduce((back, front) => over(front, back), canvas);
  };

  const isScrolled = (style, axis) => ["auto", "scroll"].includes(style[`overflow${axis}`]);
  const isClipped = (style, axis) => ["hidden", "clip"].includes(style[`overflow${axis}`]);
  // Where the text of a box ends up unseen: beyond a box that hides what is too much, or beyond the page's own side.
  const cutOff = (element, box) => {
    let scrolls = false;
    for (const one of upwards(element)) {
      if (one === root || one === document.body) break;
      const style = styleOf(one), edge = one.getBoundingClientRect();
      if (style.position === "fixed") return "";
      if (isScrolled(style, "X")) scrolls = true;
      if (!scrolls && isClipped(style, "X") && (box.right > edge.right + 1.5 || box.left < edge.left - 1.5)) return "at a side";
      if (!isScrolled(style, "Y") && isClipped(style, "Y") && box.bottom > edge.bottom + 0.35 * box.height) return "below";
      if (isScrolled(style, "Y")) return "";
    }
    return !scrolls && (box.right > wide + 1.5 || box.left < -1.5) ? "beyond the page" : "";
  };

  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const range = document.createRange();
  let texts = 0;
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const words = node.textContent.trim(), element = node.parentElement;
    if (!words || ["SCRIPT", "STYLE", "NOSCRIPT", "TITLE", "OPTION"].includes(element.tagName)) continue;
    if (!element.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
    range.selectNodeContents(node);
    const boxes = [...range.getClientRects()].filter((box) => box.width > 1 && box.height > 1);
    if (!boxes.length) continue;
    const lineage = [...upwards(element)];
    if (lineage.some((one) => one.getBoundingClientRect().right <= 0)) continue; // a drawer that waits beside the page
    if (lineage.some((one) => styleOf(one).clipPath !== "none" || one.getBoundingClientRect().width === 0)) continue; // for screen readers
    texts++;
    const style = styleOf(element), short = JSON.stringify(words.length > 50 ? `${words.slice(0, 50)}…` : words);
    const svg = element.closest("svg");
    const matrix = svg && element.getScreenCTM ? element.getScreenCTM() : null;
    const size = parseFloat(style.fontSize) * (matrix ? Math.hypot(matrix.b, matrix.d) : 1);
    if (size < smallest - 0.05) tell("small", `${short} at ${size.toFixed(1)} px`, element);
    for (const box of boxes) {
      const how = cutOff(element, box);
      if (how) { tell("cut", `${short} ${how}`, element); break; }
    }
    if (style.textOverflow === "ellipsis" && element.scrollWidth > element.clientWidth + 1 && !lineage.some((one) => one.title)) tell("cut", `${short} with an ellipsis, without a title`, element);
    const back = behind(svg ? svg.parentElement : element);
    if (!back || lineage.some((one) => one.matches(":disabled"))) continue;
    const seen = lineage.reduce((alpha, one) => alpha * Number(styleOf(one).opacity), 1);
    const front = colour(svg ? style.fill : style.color);
    const found = ratio(over([front[0], front[1], front[2], front[3] * seen], back), back);
    const isLarge = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    if (found < (isLarge ? largeContrast : contrast) - 0.005) tell("faint", `${short} at ${found.toFixed(2)}:1`, element);
  }
  if (!texts) faults.set("empty: no text to be seen", 1);
  if (root.scrollWidth > root.clientWidth) {
    faults.set(`wide: the page scrolls sideways, ${root.scrollWidth} px in ${root.clientWidth}`, 1);
    for (const one of document.body.querySelectorAll("*")) {
      const box = one.getBoundingClientRect();
      if (box.right > wide + 1 && box.width > 0 && cutOff(one, box) === "beyond the page" && ![...one.children].some((child) => child.getBoundingClientRect().right >= box.right)) tell("wide", `to ${Math.round(box.right)} px`, one);
    }
  }
  return [...faults].map(([line, times]) => (times > 1 ? `${line} (${times} times)` : line));
}
