"use strict";
(() => {
  const drawn = new Map();
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let printing = false;

  function theme() {
    const style = getComputedStyle(document.documentElement);
    const of = (name) => style.getPropertyValue(name).trim();
    const text = printing ? "#000" : of("--text"), dim = printing ? "#444" : of("--dim");
    const line = printing ? "#ccc" : of("--line");
    return {
      background: null,
      font: "system-ui, -apple-system, 'Segoe UI', Roboto, Arial, sans-serif",
      view: { stroke: line },
      axis: { labelColor: dim, titleColor: dim, gridColor: line, gridOpacity: 0.7, domainColor: line, tickColor: line,
        labelFontSize: 11, titleFontSize: 12, titleFontWeight: 500 },
      legend: { labelColor: text, titleColor: dim, labelFontSize: 12 },
      title: { color: text },
    };
  }

  async function draw(place) {
    const spec = JSON.parse(document.querySelector(`script[data-for="${place.id}"]`).textContent);
    const made = await vegaEmbed(place, spec, { actions: false, renderer: "svg", ast: true, config: theme() });
    if (drawn.has(place)) drawn.get(place).finalize();
    drawn.set(place, made);
    made.view.addEventListener("click", (event, item) => {
      if (item && item.datum && item.datum.command) choose(item.datum.command);
    });
  }

  const all = () => [...document.querySelectorAll(".plot")];
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      watcher.unobserve(entry.target);
      draw(entry.target);
    }
  }, { rootMargin: "300px" });
  const first = all().filter((place) => !place.classList.contains("lazy"));
  for (const place of all()) if (place.classList.contains("lazy")) watcher.observe(place);
  Promise.all(first.map(draw)).then(() => { document.documentElement.dataset.ready = "yes"; });

  const again = () => Promise.all([...drawn.keys()].map(draw));
  dark.addEventListener("change", again);
  addEventListener("beforeprint", () => {
    printing = true;
    for (const box of document.querySelectorAll("details")) box.open = true;
    for (const place of all()) draw(place);
  });
  addEventListener("afterprint", () => { printing = false; again(); });

  const command = document.getElementById("command");
  function choose(text) {
    if (!command) return;
    command.querySelector("code").textContent = text;
    for (const row of document.querySelectorAll("tr[data-command]"))
      row.classList.toggle("chosen", row.dataset.command === text);
  }
  for (const row of document.querySelectorAll("tr[data-command]")) {
    row.addEventListener("click", () => choose(row.dataset.command));
    row.addEventListener("keydown", (event) => { if (event.key === "Enter") choose(row.dataset.command); });
  }
  if (command) command.querySelector("button").addEventListener("click", async (event) => {
    const code = command.querySelector("code");
    try {
      await navigator.clipboard.writeText(code.textContent);
    } catch {
      getSelection().selectAllChildren(code);
      document.execCommand("copy");
    }
    event.target.textContent = "Copied";
    setTimeout(() => { event.target.textContent = "Copy"; }, 1500);
  });
})();
