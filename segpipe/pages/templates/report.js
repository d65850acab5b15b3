// For the report and the comparison: values of curves under the pointer, one switch for all pictures, and the viewer that compares
// two layers of a picture. The pages can be read without it.
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // Curves: a crosshair at the nearest step, moved by pointer or arrow keys.
  for (const svg of all("svg[data-points]")) {
    const curves = JSON.parse(svg.dataset.points);
    const makeScale = (key) => {
      const [low, high, start, end] = JSON.parse(svg.dataset[key]);
      return (value) => start + (value - low) / (high - low || 1) * (end - start);
    };
    const x = makeScale("x"), y = makeScale("y"), cross = svg.querySelector(".cross"), line = cross.querySelector("line");
    const reading = svg.parentElement.querySelector(".reading"), spans = all("span", reading);
    const lastValues = spans.map((span) => span.querySelector("b").textContent);
    const steps = [...new Set(curves.flat().map((point) => point[0]))].sort((a, b) => a - b);
    const stepLabel = document.createElement("span");
    stepLabel.className = "at";
    const dots = all(".line", svg).map((curve) => {
      const dot = document.createElementNS(svg.namespaceURI, "circle");
      dot.setAttribute("r", 4);
      dot.setAttribute("class", curve.getAttribute("class").replace("line", ""));
      cross.append(dot);
      return dot;
    });
    let index = steps.length - 1;
    const show = () => {
      const step = steps[index];
      cross.setAttribute("visibility", "visible");
      line.setAttribute("x1", x(step));
      line.setAttribute("x2", x(step));
      curves.forEach((points, i) => {
        const near = points.reduce((a, b) => Math.abs(b[0] - step) < Math.abs(a[0] - step) ? b : a);
        dots[i].setAttribute("cx", x(near[0]));
        dots[i].setAttribute("cy", y(near[1]));
        spans[i].querySelector("b").textContent = Number(near[1].toPrecision(4));
      });
      stepLabel.textContent = "step " + step;
      reading.append(stepLabel);
    };
    const hide = () => {
      cross.setAttribute("visibility", "hidden");
      stepLabel.remove();
      spans.forEach((span, i) => { span.querySelector("b").textContent = lastValues[i]; });
    };
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect(), pixel = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
      index = steps.reduce((best, step, i) => Math.abs(x(step) - pixel) < Math.abs(x(steps[best]) - pixel) ? i : best, 0);
      show();
    });
    // While the chart has the keyboard focus, a page that scrolls under a resting pointer must not hide the values.
    svg.addEventListener("pointerleave", () => document.activeElement === svg || hide());
    svg.addEventListener("blur", hide);
    svg.addEventListener("focus", show);
    svg.addEventListener("keydown", (event) => {
      const change = { ArrowLeft: -1, ArrowRight: 1, Home: -steps.length, End: steps.length }[event.key];
      if (!change) return;
      event.preventDefault();
      index = Math.min(steps.length - 1, Math.max(0, index + change));
      show();
    });
  }

  // Gallery: one switch for all pictures; keys 1 to 4 do the same.
  const shots = all(".shot"), switches = all("[data-all] input");
  const showLayer = (layer) => {
    for (const input of all("#gallery input[type=radio]")) if (input.value === layer) input.checked = true;
  };
  for (const input of switches) input.addEventListener("change", () => showLayer(input.value));

  const viewer = document.getElementById("viewer");
  if (viewer) {
    const images = [viewer.querySelector(".under"), viewer.querySelector(".over")], wipe = viewer.querySelector(".wipe");
    const sides = all("select", viewer), slider = viewer.querySelector("input[type=range]");
    let current = 0;
    const show = () => {
      sides.forEach((side, i) => {
        const source = shots[current].querySelector("img." + side.value);
        images[i].src = source.src;
        images[i].alt = source.alt;
      });
    };
    const fill = () => {
      const shot = shots[current], layers = all("img", shot);
      sides.forEach((side, i) => {
        side.replaceChildren(...layers.map((layer) => new Option(layer.dataset.layer, layer.className)));
        side.value = shot.dataset[["left", "right"][i]];
      });
      viewer.querySelector("header b").textContent = shot.dataset.key;
      viewer.querySelector("header span").textContent = shot.querySelector("figcaption span").textContent;
      show();
    };
    const moveSeam = (percentage) => { slider.value = percentage; wipe.style.setProperty("--at", percentage + "%"); };
    const open = (index) => {
      current = (index + shots.length) % shots.length;
      fill();
      if (!viewer.open) { moveSeam(50); viewer.showModal(); slider.focus(); }
    };
    shots.forEach((shot, index) => shot.querySelector(".open").addEventListener("click", () => open(index)));
    slider.addEventListener("input", () => moveSeam(slider.value));
    for (const side of sides) side.addEventListener("change", show);
    const drag = (event) => {
      const box = wipe.getBoundingClientRect();
      moveSeam(Math.min(100, Math.max(0, (event.clientX - box.left) / box.width * 100)));
    };
    wipe.addEventListener("pointerdown", (event) => { event.preventDefault(); wipe.setPointerCapture(event.pointerId); drag(event); });
    wipe.addEventListener("pointermove", (event) => { if (event.buttons) drag(event); });
    viewer.querySelector(".close").addEventListener("click", () => viewer.close());
    viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });
    viewer.addEventListener("close", () => shots[current].querySelector(".open").focus());
    viewer.addEventListener("keydown", (event) => {
      if (event.target.tagName !== "SELECT" && (event.key === "n" || event.key === "p")) open(current + (event.key === "n" ? 1 : -1));
    });
  }
  document.addEventListener("keydown", (event) => {
    const input = switches[Number(event.key) - 1];
    const modified = event.ctrlKey || event.metaKey || event.altKey;
    if (input && !modified && !(viewer && viewer.open) && event.target.tagName !== "SELECT") showLayer(input.value);
  });
})();
