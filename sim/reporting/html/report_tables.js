// Tables: sorting by a column, and a download of each as CSV.
const textOf = (cell) => cell.textContent.trim().replaceAll("\u2212", "-");

// The number that a cell begins with, or its text.
function sortKey(cell) {
  const found = /^[-+]?[\d,]*\.?\d+/.exec(textOf(cell));
  return found ? Number(found[0].replaceAll(",", "")) : textOf(cell);
}

function compare(one, other) {
  if (typeof one === "number" && typeof other === "number") return one - other;
  if (typeof one !== typeof other) return typeof one === "number" ? -1 : 1; // text, such as a missing value, is last
  return one.localeCompare(other);
}

function sortBy(table, index) {
  const heads = [...table.tHead.rows[0].cells];
  const sign = heads[index].getAttribute("aria-sort") === "ascending" ? -1 : 1;
  const rows = [...table.tBodies[0].rows].map((row) => ({ row, key: sortKey(row.cells[index]) }));
  rows.sort((one, other) => (typeof one.key === typeof other.key ? sign : 1) * compare(one.key, other.key));
  for (const head of heads) head.removeAttribute("aria-sort");
  heads[index].setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
  for (const { row } of rows) row.classList.remove("begins");
  table.tBodies[0].append(...rows.map(({ row }) => row));
}

// The grey part of a cell, such as an interval, has a column of its own.
function csvOf(table) {
  const rows = [...table.rows].map((row) => [...row.cells]);
  const hasSpread = rows[0].map((_, index) => rows.some((cells) => cells[index]?.querySelector(".spread")));
  const lines = rows.map((cells, number) =>
    cells.flatMap((cell, index) => {
      const copy = cell.cloneNode(true);
      const spread = copy.querySelector(".spread");
      spread?.remove();
      copy.querySelector(".words")?.remove();
      const aside = number === 0 ? `${textOf(cell)} (interval)` : spread ? textOf(spread).replace(/^± /, "") : "";
      return hasSpread[index] ? [textOf(copy), aside] : [textOf(copy)];
    }),
  );
  const quoted = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  return lines.map((line) => line.map(quoted).join(",")).join("\n") + "\n";
}

for (const table of document.querySelectorAll("table[data-saved]")) {
  const tools = document.createElement("p");
  tools.className = "tools";
  const button = tools.appendChild(document.createElement("button"));
  button.type = "button";
  button.textContent = "Download CSV";
  button.setAttribute("aria-label", `Download CSV: ${table.dataset.saved}`);
  button.addEventListener("click", () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([csvOf(table)], { type: "text/csv" }));
    link.download = `${table.dataset.saved.toLowerCase().replace(/[^a-z0-9.]+/g, "_")}.csv`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
  table.closest(".scroll").after(tools);
}
for (const table of document.querySelectorAll("table[data-sorts]")) {
  [...table.tHead.rows[0].cells].forEach((head, index) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => sortBy(table, index));
  });
}
