// Moves through the suspects by keyboard. Marks are stored in this browser and can be downloaded as a file.
"use strict";
const sheets = [...document.querySelectorAll(".sheet")];
const storeName = "segpipe suspects " + location.pathname + " " + sheets.map((s) => s.dataset.key + s.dataset.score).join(" ");
let current = -1;

function stored() {
  try { return JSON.parse(localStorage.getItem(storeName) || "{}"); } catch { return {}; } // browsers may forbid it for local files
}

function store() {
  const marks = Object.fromEntries(sheets.filter((s) => s.dataset.mark).map((s) => [s.dataset.key, s.dataset.mark]));
  try { localStorage.setItem(storeName, JSON.stringify(marks)); } catch { /* the marks are then lost when the page is closed */ }
}

function mark(sheet, value) {
  if (value) sheet.dataset.mark = value;
  else delete sheet.dataset.mark;
  for (const button of sheet.querySelectorAll(".marks button")) button.setAttribute("aria-pressed", String(button.dataset.set === value));
  const marked = sheets.filter((s) => s.dataset.mark);
  const wrong = marked.filter((s) => s.dataset.mark === "wrong").length;
  document.getElementById("done").value = marked.length;
  document.getElementById("state").textContent = `${marked.length} of ${sheets.length} marked, ${wrong} wrong`;
}

function go(to) {
  const next = Math.min(Math.max(to, 0), sheets.length - 1);
  if (current >= 0) sheets[current].removeAttribute("aria-current");
  current = next;
  sheets[current].setAttribute("aria-current", "true");
  sheets[current].focus({ preventScroll: true });
  sheets[current].scrollIntoView({ block: "start" });
}

function judge(sheet, value) {
  mark(sheet, value);
  store();
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const key = event.key.toLowerCase();
  if (key === "j") go(current + 1);
  else if (key === "k") go(current - 1);
  else if (key in { w: 1, r: 1, x: 1 } && current >= 0) {
    judge(sheets[current], { w: "wrong", r: "right" }[key]);
    if (key !== "x" && current < sheets.length - 1) go(current + 1);
  } else return;
  event.preventDefault();
});

for (const [index, sheet] of sheets.entries()) {
  for (const button of sheet.querySelectorAll(".marks button"))
    button.addEventListener("click", () => judge(sheet, sheet.dataset.mark === button.dataset.set ? undefined : button.dataset.set));
  sheet.addEventListener("focusin", () => {
    if (current === index) return;
    if (current >= 0) sheets[current].removeAttribute("aria-current");
    current = index;
    sheet.setAttribute("aria-current", "true");
  });
}

function download(name, type, text) {
  const link = Object.assign(document.createElement("a"), { download: name, href: URL.createObjectURL(new Blob([text], { type })) });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

const rows = () => sheets.map((s) => ({ rank: Number(s.dataset.rank), key: s.dataset.key, split: s.dataset.split, score: Number(s.dataset.score), mark: s.dataset.mark || "" }));
const cell = (value) => (/[",\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : String(value));
document.getElementById("json").addEventListener("click", () => download("suspect-marks.json", "application/json", JSON.stringify(rows(), null, 2) + "\n"));
document.getElementById("csv").addEventListener("click", () => {
  const lines = rows().map((row) => Object.values(row).map(cell).join(","));
  download("suspect-marks.csv", "text/csv", ["rank,key,split,score,mark", ...lines].join("\n") + "\n");
});

const marks = stored();
for (const sheet of sheets) mark(sheet, marks[sheet.dataset.key]);
