// The strips: what each node did over time in single runs, with the losses on the same clock and a slider.
const { strips, styles } = JSON.parse(document.getElementById("content").textContent);
const strip = document.getElementById("strip");
const STATES = { c: "computing", l: "lost-work", w: "waiting", r: "recovering", g: "gone" };
const WORDS = { c: "computing", l: "computing, later undone", w: "waiting", r: "recovering", g: "gone", "-": "ended" };
const MARGIN = { left: 40, right: 12 }, TITLE = 20, TICKS = 10, GAP = 8, LOSS = 150, AXIS = 34;

if (strip) {
  const seedSelect = document.getElementById("seeds");
  const slider = document.getElementById("instant");
  const readout = document.getElementById("readout");
  const tip = document.getElementById("strip-tip");
  let shown = [], places = [], end = 1, width = 0, panel = null;

  const element = (name, attributes, parent, text) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return parent.appendChild(made);
  };
  const parts = (row) => [...row.matchAll(/([a-z-])(\d+)/g)].map(([, letter, number]) => [letter, Number(number)]);
  const x = (hours) => MARGIN.left + ((width - MARGIN.left - MARGIN.right) * hours) / end;
  const digits = () => (end >= 10 ? 1 : end >= 1 ? 2 : 3);
  const now = () => (Number(slider.value) / Number(slider.max)) * end;

  function chooseRuns() {
    const seeds = seedSelect ? seedSelect.value : strips[0].seeds;
    const point = selected(pointSelect);
    const found = strips.find((one) => one.seeds === seeds && one.point === point);
    shown = (found?.runs ?? []).filter((run) => chosen.has(run.strategy));
    end = Math.max(...shown.map((run) => run.hours), 1e-9);
  }

  function drawStrip(svg, run, top) {
    const height = Math.max(3, Math.min(11, Math.floor(130 / run.rows.length)));
    const title = `${labels[run.strategy]}: ${run.hours.toFixed(digits())} h, ${run.events.length} lost`;
    element("text", { x: MARGIN.left, y: top + 13, class: "strip-title" }, svg, title);
    const first = top + TITLE + TICKS;
    const paths = {};
    run.rows.forEach((row, index) => {
      let column = 0;
      for (const [letter, number] of parts(row)) {
        const [from, to] = [column, column + number].map((at) => x((run.hours * at) / 1000));
        const box = `M${from.toFixed(1)},${first + index * height}h${(to - from).toFixed(1)}v${height - 1}H${from.toFixed(1)}Z`;
        if (letter !== "-") paths[letter] = (paths[letter] ?? "") + box;
        column += number;
      }
      if (height >= 9 && run.names[index]) {
        element("text", { x: MARGIN.left - 6, y: first + index * height + height - 2, class: "strip-row" }, svg, run.names[index]);
      }
    });
    for (const [letter, d] of Object.entries(paths)) element("path", { d, class: `state-${STATES[letter]}` }, svg);
    for (const [hours] of run.events) {
      const [at, y] = [x(hours), top + TITLE + 4];
      element("path", { d: `M${at - 3},${y - 3}l6,6M${at - 3},${y + 3}l6,-6`, class: "strip-mark" }, svg);
    }
    places.push({ run, top: top + TITLE, first, height, bottom: first + height * run.rows.length });
    return first + height * run.rows.length + GAP;
  }

  function ticks(low, high, most) {
    const rough = (high - low) / most || 1;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((factor) => factor * power).find((one) => one >= rough);
    const found = [];
    for (let at = Math.ceil(low / step) * step; at <= high + 1e-9 * step; at += step) found.push(Number(at.toPrecision(6)));
    return found;
  }

  function drawLosses(svg, top) {
    const later = shown.flatMap((run) => run.loss[1].filter((loss, index) => loss !== null && run.loss[0][index] >= 0.08 * run.hours));
    if (!later.length) return top;
    const low = Math.min(...later), high = Math.max(...later), span = high - low || 1e-3;
    const y = (loss) => top + TITLE + (LOSS - TITLE) * (1 - (loss - low + 0.05 * span) / (1.1 * span));
    panel = { top: top + TITLE, bottom: top + LOSS };
    element("text", { x: MARGIN.left, y: top + 13, class: "strip-title" }, svg, "Validation loss of the proxy (nats per token)");
    for (const at of ticks(low, high, 4)) {
      element("line", { x1: MARGIN.left, x2: width - MARGIN.right, y1: y(at), y2: y(at), class: "strip-grid" }, svg);
      element("text", { x: MARGIN.left - 6, y: y(at) + 4, class: "strip-row" }, svg, String(at));
    }
    const clip = element("clipPath", { id: "strip-clip" }, svg);
    element("rect", { x: MARGIN.left, y: top + TITLE, width: width - MARGIN.left - MARGIN.right, height: LOSS - TITLE }, clip);
    for (const run of shown) {
      let d = "", pen = "M";
      run.loss[1].forEach((loss, index) => {
        if (loss === null) pen = "M";
        else {
          d += `${pen}${x(run.loss[0][index]).toFixed(1)},${y(loss).toFixed(1)}`;
          pen = "L";
        }
      });
      const { colour, dashes } = styles[run.strategy];
      const look = { d, stroke: colour, "stroke-dasharray": dashes.join(" "), "clip-path": "url(#strip-clip)", class: "strip-loss" };
      if (d) element("path", look, svg);
    }
    return top + LOSS + GAP;
  }

  function redraw() {
    width = strip.clientWidth;
    if (!width) return;
    chooseRuns();
    places = [];
    panel = null;
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    let top = 0;
    for (const run of shown) top = drawStrip(svg, run, top);
    top = drawLosses(svg, top);
    for (const at of ticks(0, end, Math.max(2, Math.floor(width / 90)))) {
      element("line", { x1: x(at), x2: x(at), y1: top, y2: top + 4, class: "strip-axis" }, svg);
      element("text", { x: x(at), y: top + 17, class: "strip-tick" }, svg, String(at));
    }
    element("text", { x: width / 2, y: top + 31, class: "strip-tick" }, svg, "simulated hours of the target model");
    element("line", { y1: 0, y2: top, class: "strip-cursor", id: "cursor" }, svg);
    for (const [key, value] of Object.entries({ width, height: top + AXIS, role: "img" })) svg.setAttribute(key, value);
    svg.setAttribute("aria-label", `${strip.dataset.label} ${shown.map((run) => labels[run.strategy]).join(", ")}`);
    strip.replaceChildren(svg);
    moveTo();
  }

  function lossAt(run, hours) {
    let found = null;
    run.loss[0].forEach((at, index) => {
      if (at <= hours && run.loss[1][index] !== null) found = run.loss[1][index];
    });
    return found;
  }

  // What is to be read at the instant of the slider, a line for each run.
  function moveTo() {
    const hours = now();
    const cursor = strip.querySelector("#cursor");
    for (const name of ["x1", "x2"]) cursor?.setAttribute(name, x(hours));
    slider.setAttribute("aria-valuetext", `${hours.toFixed(digits())} hours`);
    const lines = shown.map((run) => {
      const at = Math.min(hours / run.hours, 1);
      const past = run.events.filter(([time]) => time <= hours);
      const loss = lossAt(run, hours);
      const line = [`iteration ${run.progress[Math.floor(at * (run.progress.length - 1))]}`];
      if (loss !== null) line.push(`loss ${loss.toFixed(3)}`);
      line.push(`${past.length} lost`);
      if (past.length) line.push(`last: ${past[past.length - 1][2]}`);
      const item = document.createElement("li");
      item.append(Object.assign(document.createElement("strong"), { textContent: labels[run.strategy] }));
      item.append(`${at === 1 ? " (ended)" : ""}: ${line.join("; ")}`);
      return item;
    });
    document.getElementById("clock").textContent = `${hours.toFixed(digits())} h`;
    readout.replaceChildren(...lines);
  }

  function jump(sign) {
    const times = shown.flatMap((run) => run.events.map(([hours]) => hours)).sort((one, other) => one - other);
    const step = end / Number(slider.max);
    const later = sign > 0 ? times.find((time) => time > now() + step) : times.reverse().find((time) => time < now() - step);
    if (later === undefined) return;
    slider.value = Math.ceil((later / end) * Number(slider.max));
    moveTo();
  }

  function describe(event) {
    const box = strip.getBoundingClientRect();
    const [at, y] = [event.clientX - box.left, event.clientY - box.top];
    const hours = ((at - MARGIN.left) / (width - MARGIN.left - MARGIN.right)) * end;
    const here = places.find((one) => y >= one.top && y <= one.bottom);
    if (!here || hours < 0 || hours > here.run.hours) return null;
    const near = here.run.events.filter(([time]) => Math.abs(x(time) - at) <= 5);
    near.sort((one, other) => Math.abs(x(one[0]) - at) - Math.abs(x(other[0]) - at));
    if (near.length) return near[0][2];
    const index = Math.floor((y - here.first) / here.height);
    if (index < 0 || index >= here.run.rows.length) return null;
    let column = Math.floor((hours / here.run.hours) * 1000);
    const [letter] = parts(here.run.rows[index]).find(([, number]) => (column -= number) < 0) ?? ["-"];
    const name = here.run.names[index] ? `${here.run.names[index]}, ` : "";
    return `${name}${hours.toFixed(digits())} h: ${WORDS[letter]}`;
  }

  strip.addEventListener("pointermove", (event) => {
    const words = describe(event);
    tip.textContent = words ?? "";
    tip.classList.toggle("visible", words !== null);
    tip.style.left = `${Math.min(event.clientX + 12, window.innerWidth - tip.offsetWidth - 8)}px`;
    tip.style.top = `${event.clientY + 14}px`;
  });
  strip.addEventListener("pointerleave", () => tip.classList.remove("visible"));
  strip.addEventListener("click", (event) => {
    const at = event.clientX - strip.getBoundingClientRect().left - MARGIN.left;
    slider.value = Math.round((at / (width - MARGIN.left - MARGIN.right)) * Number(slider.max));
    moveTo();
  });
  slider.addEventListener("input", moveTo);
  seedSelect?.addEventListener("change", redraw);
  pointSelect?.addEventListener("change", redraw);
  document.getElementById("before").addEventListener("click", () => jump(-1));
  document.getElementById("after").addEventListener("click", () => jump(1));
  for (const button of document.querySelectorAll("button[data-strategy]")) button.addEventListener("click", redraw);
  new ResizeObserver(() => strip.clientWidth !== width && redraw()).observe(strip);
  redraw();
}
