// Draws the charts of a report and keeps them in step with its controls. `vegaEmbed` comes from the script before.
const { labels, points, groups, charts } = JSON.parse(document.getElementById("content").textContent);
const chosen = new Set(labels.keys());
const pointSelect = document.getElementById("point");
const axisSelect = document.getElementById("axis");
const marks = document.getElementById("marks");
const status = document.getElementById("status");
const views = new Map();

const selected = (element) => (element ? Number(element.value) : 0);

// Points that differ from the selected one along the horizontal axis alone.
function pointsAlong() {
  const here = points[selected(pointSelect)].places;
  const axis = selected(axisSelect);
  const isAlong = (point) => point.places.every((place, index) => index === axis || place === here[index]);
  return points.map((point, index) => (isAlong(point) ? index : -1)).filter((index) => index >= 0);
}

function signals() {
  const point = selected(pointSelect);
  const isShown = (group) => chosen.has(group.strategy) && group.points.includes(point);
  return {
    strategies: [...chosen],
    groups: [...groups.keys()].filter((number) => isShown(groups[number])),
    along: pointsAlong(),
    axis: selected(axisSelect),
    failures: marks?.getAttribute("aria-pressed") === "true",
  };
}

function isShown(row, now) {
  if (row.point === undefined) return now.groups.includes(row.group);
  return now.strategies.includes(row.strategy) && now.along.includes(row.point);
}

const options = {
  renderer: "svg", // whose text and lines follow the page's style sheet
  ast: true, // without eval, so that the page's policy can forbid it
  logLevel: 1, // errors: that a chart without any strategy is empty is no news
  actions: false,
  defaultStyle: false,
  tooltip: { disableDefaultStyle: true },
};

function steer(chart, view, now) {
  for (const name of chart.signals) view.signal(name, now[name]);
  return view.runAsync();
}

function rowsOf(columns) {
  const fields = Object.keys(columns);
  return columns[fields[0]].map((_, place) => Object.fromEntries(fields.map((field) => [field, columns[field][place]])));
}

async function draw(chart) {
  const datasets = Object.fromEntries(Object.entries(chart.datasets).map(([name, columns]) => [name, rowsOf(columns)]));
  const { view } = await vegaEmbed(document.getElementById(chart.id), { ...chart.spec, datasets }, options);
  views.set(chart, view);
  await steer(chart, view, signals());
}

async function update() {
  const now = signals();
  for (const [chart, view] of views) {
    await steer(chart, view, now);
    const details = document.getElementById(`${chart.id}-data`);
    if (details.open) fillTable(chart, details);
  }
  const names = labels.filter((_, index) => chosen.has(index)).join(", ") || "no strategy";
  const where = pointSelect ? ` at ${points[selected(pointSelect)].label}` : "";
  status.textContent = `Charts show ${names}${where}.`;
}

function cellText(value, digits) {
  if (value === null || value === undefined) return "-";
  if (typeof value !== "number") return String(value);
  return value.toLocaleString("en", { maximumFractionDigits: digits, minimumFractionDigits: digits, useGrouping: false });
}

// The table behind a chart, of what it shows at the moment.
function fillTable(chart, details) {
  const now = signals();
  const rows = views.get(chart).data("rows").filter((row) => isShown(row, now));
  const table = document.createElement("table");
  table.createCaption().textContent = details.dataset.caption;
  const valueOf = (row, field) => {
    if (field === "label") return labels[row.strategy];
    return field === "place" ? row.places[now.axis] : row[field];
  };
  const head = table.createTHead().insertRow();
  for (const { title, digits } of chart.columns) {
    const cell = head.appendChild(document.createElement("th"));
    cell.scope = "col";
    cell.textContent = title;
    if (digits === null) cell.className = "text";
  }
  const body = table.createTBody();
  for (const row of rows) {
    const line = body.insertRow();
    chart.columns.forEach(({ field, digits }, index) => {
      const cell = line.appendChild(document.createElement(index === 0 ? "th" : "td"));
      if (index === 0) cell.scope = "row";
      if (digits === null) cell.className = "text";
      cell.textContent = cellText(valueOf(row, field), digits);
    });
  }
  details.querySelector(".scroll").replaceChildren(table);
}

for (const button of document.querySelectorAll("button[data-strategy]")) {
  button.addEventListener("click", () => {
    const index = Number(button.dataset.strategy);
    if (!chosen.delete(index)) chosen.add(index);
    button.setAttribute("aria-pressed", String(chosen.has(index)));
    update();
  });
}
marks?.addEventListener("click", () => {
  marks.setAttribute("aria-pressed", String(marks.getAttribute("aria-pressed") !== "true"));
  update();
});
for (const select of [pointSelect, axisSelect]) select?.addEventListener("change", update);
for (const chart of charts) {
  const details = document.getElementById(`${chart.id}-data`);
  details.addEventListener("toggle", () => details.open && fillTable(chart, details));
}
for (const region of document.querySelectorAll(".scroll")) {
  // Whatever scrolls must be reachable without a mouse.
  new ResizeObserver(() => {
    if (region.scrollWidth > region.clientWidth) region.tabIndex = 0;
    else region.removeAttribute("tabindex");
  }).observe(region);
}
for (const chart of charts) await draw(chart);
document.documentElement.dataset.drawn = String(views.size);
