// Goes through the suspects by keyboard; marks stay in this browser until they are taken along as a file.
"use strict";
const sheets = [...document.querySelectorAll(".sheet")];
const storeName = "segpipe suspects " + location.pathname + " " + sheets.map((s) => s.dataset.key + s.dataset.score).join(" ");
let at = -1;

function stored() {
  try { return JSON.parse(localStorage.getItem(storeName) || "{}"); } catch { return {}; } // a browser may forbid it for files
}

function keep() {
  const marks = Object.fromEntries(sheets.filter((s) => s.dataset.mark).map((s) => [s.dataset.key, s.dataset.mark]));
  try { localStorage.setItem(storeName, JSON.stringify(marks)); } catch { /* marks then last as long as the page is open */ }
}

function mark(sheet, value) {
  if (value) sheet.dataset.mark = value;
  else delete sheet.dataset.mark;
  for (const button of sheet.querySelectorAll(".marks button")) button.setAttribute("aria-pressed", String(button.dataset.set === value));
  const done = sheets.filter((s) => s.dataset.mark);
  const wrong = done.filter((s) => s.dataset.mark === "wrong").length;
  document.getElementById("done").value = done.length;
  document.getElementById("state").textContent = `${done.length} of ${sheets.length} marked, ${wrong} wrong`;
}

function go(to) {
  const next = Math.min(Math.max(to, 0), sheets.length - 1);
  if (at >= 0) sheets[at].removeAttribute("aria-current");
  at = next;
  sheets[at].setAttribute("aria-current", "true");
  sheets[at].focus({ preventScroll: true });
  sheets[at].scrollIntoView({ block: "start" });
}

function judge(sheet, value) {
  mark(sheet, value);
  keep();
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const key = event.key.toLowerCase();
  if (key === "j") go(at + 1);
  else if (key === "k") go(at - 1);
  else if (key in { w: 1, r: 1, x: 1 } && at >= 0) {
    judge(sheets[at], { w: "wrong", r: "right" }[key]);
    if (key !== "x" && at < sheets.length - 1) go(at + 1);
  } else return;
  event.preventDefault();
});

for (const [place, sheet] of sheets.entries()) {
  for (const button of sheet.querySelectorAll(".marks button"))
    button.addEventListener("click", () => judge(sheet, sheet.dataset.mark === button.dataset.set ? undefined : button.dataset.set));
  sheet.addEventListener("focusin", () => {
    if (at === place) return;
    if (at >= 0) sheets[at].removeAttribute("aria-current");
    at = place;
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

const before = stored();
for (const sheet of sheets) mark(sheet, before[sheet.dataset.key]);
