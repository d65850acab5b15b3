// For every page: the switch between light and dark, and buttons that copy a command. Pages can be read without it.
(() => {
  // The scheme follows the system until the reader chooses one.
  const scheme = document.getElementById("scheme");
  scheme.hidden = false;
  scheme.addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.scheme ? root.dataset.scheme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.scheme = dark ? "light" : "dark";
  });

  for (const button of document.querySelectorAll(".copy")) button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
      button.textContent = "Copied";
    } catch { // browsers may forbid it for local files: select the text instead
      const range = document.createRange();
      range.selectNodeContents(button.parentElement.querySelector("code"));
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
})();
