// Sliders over a scenario: each position is simulated by the server, the latest one last.
const { controls, command, figures, has_losses, target } = JSON.parse(document.getElementById("content").textContent);
const main = document.querySelector("main");
const form = document.getElementById("sliders");
const byId = (id) => document.getElementById(id);
const values = new Map(controls.map((control) => [control.field, control.own]));
const views = new Map();
const options = {
  renderer: "svg", ast: true, logLevel: 1, actions: false, defaultStyle: false, tooltip: { disableDefaultStyle: true },
};

const nearest = (control, value) => {
  const distances = control.values.map((one) => Math.abs(one - value));
  return distances.indexOf(Math.min(...distances));
};

function addControl(control, number) {
  const field = document.createElement("div");
  field.className = "field";
  const label = Object.assign(document.createElement("label"), { htmlFor: `slider-${number}`, textContent: control.label });
  const slider = Object.assign(document.createElement("input"), {
    type: "range", id: `slider-${number}`, min: 0, max: control.values.length - 1, step: 1,
  });
  const typed = Object.assign(document.createElement("input"), { type: "number", id: `value-${number}`, step: "any" });
  typed.setAttribute("aria-label", `${control.label}, as a number`);
  const show = (value) => {
    slider.value = nearest(control, value);
    slider.setAttribute("aria-valuetext", String(value));
    typed.value = value;
  };
  slider.addEventListener("input", () => {
    const value = control.values[Number(slider.value)];
    values.set(control.field, value);
    slider.setAttribute("aria-valuetext", String(value));
    typed.value = value;
    ask();
  });
  typed.addEventListener("change", () => {
    const value = typed.value.trim() === "" ? null : Number(typed.value);
    values.set(control.field, value);
    if (value !== null) slider.value = nearest(control, value);
    ask();
  });
  field.append(label, slider, typed);
  form.append(field);
  show(control.own);
  return show;
}

let isAsking = false, isAskedAgain = false;

// One request at a time; what was moved meanwhile is asked for afterwards, as is the rest of an answer with few seeds.
async function ask() {
  if (isAsking) {
    isAskedAgain = true;
    return;
  }
  isAsking = true;
  main.classList.add("busy");
  let isRest = false;
  do {
    if (isAskedAgain) isRest = false;
    isAskedAgain = false;
    const moved = [...values].filter(([field, value]) => value !== controls.find((one) => one.field === field).own);
    const started = performance.now();
    try {
      const reply = await fetch("/simulate", { method: "POST", body: JSON.stringify(Object.fromEntries(moved)) });
      const found = await reply.json();
      if (reply.ok) await show(found, moved, isRest ? null : (performance.now() - started) / 1000);
      else fail(found.error);
      isRest = reply.ok && !found.is_complete;
    } catch (error) {
      isRest = false;
      fail(error instanceof TypeError ? "No answer: the server in the terminal has ended. Start it again and reload this page." : String(error));
    }
  } while (isAskedAgain || isRest);
  isAsking = false;
  main.classList.remove("busy");
}

function fail(words) {
  byId("error").textContent = words;
  byId("error").hidden = false;
}

async function show(found, moved, seconds) {
  byId("error").hidden = found.stopped.length === 0;
  byId("error").textContent = found.stopped.join(" ");
  byId("verdict").textContent = found.verdict;
  byId("about").textContent = found.about;
  if (seconds !== null) byId("took").textContent = `Answered in ${seconds.toFixed(2)} s.`;
  const quoted = (text) => (/^[\w.=]+$/.test(text) ? text : `'${text}'`);
  byId("command").textContent = [command, ...moved.map(([field, value]) => `--set ${quoted(`${field}=${value}`)}`)].join(" ");
  byId("rows").replaceChildren(...found.rows.map(rowOf));
  for (const [name, rows] of [["loss", found.curves], ["ledger", found.ledger]]) {
    if (byId(name)) await draw(name, rows);
  }
  if (found.is_complete) document.documentElement.dataset.answered = String(Number(document.documentElement.dataset.answered ?? 0) + 1);
}

// A figure is made with its first rows, which decide how much room the labels need.
async function draw(name, rows) {
  const view = views.get(name);
  if (view) {
    await view.data("rows", rows).resize().runAsync();
    return;
  }
  const datasets = { rows, targets: target === null ? [] : [{ target }] };
  views.set(name, (await vegaEmbed(byId(name), { ...figures[name], datasets }, options)).view);
}

function rowOf(row) {
  const line = document.createElement("tr");
  const cells = [row.to_end, row.usd, row.iteration_seconds, row.lost];
  if (has_losses && target !== null) cells.unshift(row.to_target);
  if (has_losses) cells.push(row.final_loss);
  const head = line.appendChild(document.createElement("th"));
  Object.assign(head, { scope: "row", className: "text", textContent: row.label });
  cells.forEach((text, index) => {
    const cell = line.appendChild(document.createElement("td"));
    cell.textContent = text;
    const aside = index === 0 && has_losses && target !== null ? [row.spread && `± ${row.spread}`, row.reached].filter(Boolean).join(", ") : "";
    if (aside) cell.append(" ", Object.assign(document.createElement("span"), { className: "spread", textContent: aside }));
  });
  return line;
}

const resetters = controls.map(addControl);
const reset = Object.assign(document.createElement("button"), { type: "button", className: "reset", textContent: "Back to the scenario" });
reset.addEventListener("click", () => {
  controls.forEach((control, number) => {
    values.set(control.field, control.own);
    resetters[number](control.own);
  });
  ask();
});
form.append(reset);
form.addEventListener("submit", (event) => event.preventDefault());
ask();
