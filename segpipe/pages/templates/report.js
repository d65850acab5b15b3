// The page reads well without this: it adds values under the pointer, one switch for all pictures, the wipe, copying.
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // Curves: a crosshair at the nearest step, by pointer or arrow keys.
  for (const svg of all("svg[data-points]")) {
    const names = JSON.parse(svg.dataset.curves), curves = JSON.parse(svg.dataset.points);
    const scale = (key) => { const [low, high, start, end] = JSON.parse(svg.dataset[key]); return (v) => start + (v - low) / (high - low || 1) * (end - start); };
    const x = scale("x"), y = scale("y"), cross = svg.querySelector(".cross"), line = cross.querySelector("line");
    const reading = svg.parentElement.querySelector(".reading"), spans = all("span", reading), last = spans.map((s) => s.querySelector("b").textContent);
    const steps = [...new Set(curves.flat().map((p) => p[0]))].sort((a, b) => a - b);
    const at = document.createElement("span"); at.className = "at";
    const lines = all(".line", svg);
    const dots = lines.map((l) => { const c = document.createElementNS(svg.namespaceURI, "circle"); c.setAttribute("r", 4); c.setAttribute("class", l.getAttribute("class").replace("line", "")); cross.append(c); return c; });
    let place = steps.length - 1;
    const show = () => {
      const step = steps[place];
      cross.setAttribute("visibility", "visible");
      line.setAttribute("x1", x(step)); line.setAttribute("x2", x(step));
      curves.forEach((points, i) => {
        const near = points.reduce((a, b) => Math.abs(b[0] - step) < Math.abs(a[0] - step) ? b : a);
        dots[i].setAttribute("cx", x(near[0])); dots[i].setAttribute("cy", y(near[1]));
        spans[i].querySelector("b").textContent = Number(near[1].toPrecision(4));
      });
      at.textContent = "step " + step; reading.append(at);
    };
    const hide = () => { cross.setAttribute("visibility", "hidden"); at.remove(); spans.forEach((s, i) => s.querySelector("b").textContent = last[i]); };
    svg.addEventListener("pointermove", (e) => {
      const box = svg.getBoundingClientRect(), px = (e.clientX - box.left) / box.width * 340;
      place = steps.reduce((best, s, i) => Math.abs(x(s) - px) < Math.abs(x(steps[best]) - px) ? i : best, 0);
      show();
    });
    // A page that scrolls under a resting pointer must not take the values from somebody who uses the keyboard.
    svg.addEventListener("pointerleave", () => document.activeElement === svg || hide()); svg.addEventListener("blur", hide); svg.addEventListener("focus", show);
    svg.addEventListener("keydown", (e) => {
      const by = { ArrowLeft: -1, ArrowRight: 1, Home: -steps.length, End: steps.length }[e.key];
      if (!by) return;
      e.preventDefault(); place = Math.min(steps.length - 1, Math.max(0, place + by)); show();
    });
  }

  // Gallery: one switch for all pictures; keys 1 to 4 do the same.
  const shots = all(".shot"), switches = all("[data-all] input");
  const set = (layer) => { for (const input of all("#gallery input[type=radio]")) if (input.value === layer) input.checked = true; };
  for (const input of switches) input.addEventListener("change", () => set(input.value));

  const viewer = document.getElementById("viewer");
  if (viewer) {
    const [under, over] = [viewer.querySelector(".under"), viewer.querySelector(".over")], wipe = viewer.querySelector(".wipe");
    const sides = all("select", viewer), slider = viewer.querySelector("input[type=range]");
    let current = 0;
    const show = () => {
      sides.forEach((side, i) => {
        const picture = [under, over][i], source = shots[current].querySelector("img." + side.value);
        picture.src = source.src; picture.alt = source.alt;
      });
    };
    const fill = () => {
      const shot = shots[current], pictures = all("img", shot);
      sides.forEach((side, i) => {
        side.replaceChildren(...pictures.map((picture) => new Option(picture.dataset.layer, picture.className)));
        side.value = shot.dataset[["left", "right"][i]];
      });
      viewer.querySelector("header b").textContent = shot.dataset.key;
      viewer.querySelector("header span").textContent = shot.querySelector("figcaption span").textContent;
      show();
    };
    const move = (value) => { slider.value = value; wipe.style.setProperty("--at", value + "%"); };
    const open = (index) => { current = (index + shots.length) % shots.length; fill(); if (!viewer.open) { move(50); viewer.showModal(); slider.focus(); } };
    shots.forEach((shot, index) => shot.querySelector(".open").addEventListener("click", () => open(index)));
    slider.addEventListener("input", () => move(slider.value));
    for (const side of sides) side.addEventListener("change", show);
    const drag = (e) => { const box = wipe.getBoundingClientRect(); move(Math.min(100, Math.max(0, (e.clientX - box.left) / box.width * 100))); };
    wipe.addEventListener("pointerdown", (e) => { e.preventDefault(); wipe.setPointerCapture(e.pointerId); drag(e); });
    wipe.addEventListener("pointermove", (e) => { if (e.buttons) drag(e); });
    viewer.querySelector(".close").addEventListener("click", () => viewer.close());
    viewer.addEventListener("click", (e) => { if (e.target === viewer) viewer.close(); });
    viewer.addEventListener("close", () => shots[current].querySelector(".open").focus());
    viewer.addEventListener("keydown", (e) => { if (e.target.tagName !== "SELECT" && (e.key === "n" || e.key === "p")) open(current + (e.key === "n" ? 1 : -1)); });
  }
  document.addEventListener("keydown", (e) => {
    const wanted = switches[Number(e.key) - 1];
    if (wanted && !e.ctrlKey && !e.metaKey && !e.altKey && !(viewer && viewer.open) && e.target.tagName !== "SELECT") set(wanted.value);
  });

  // Light or dark: as the system has it, until somebody says otherwise.
  const scheme = document.getElementById("scheme");
  scheme.hidden = false;
  scheme.addEventListener("click", () => {
    const root = document.documentElement, dark = root.dataset.scheme ? root.dataset.scheme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.scheme = dark ? "light" : "dark";
  });

  for (const button of all(".copy")) button.addEventListener("click", async () => {
    try { await navigator.clipboard.writeText(button.dataset.copy); button.textContent = "Copied"; }
    catch { const range = document.createRange(); range.selectNodeContents(button.parentElement.querySelector("code")); getSelection().removeAllRanges(); getSelection().addRange(range); button.textContent = "Selected"; }
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
})();
