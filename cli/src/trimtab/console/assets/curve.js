// <trimtab-curve data-series="[{name, role, hue, points}]">: uPlot in a shadow root, over the SVG that the server drew.
// A live page changes the attribute alone; the picture, and where somebody points in it, stays.
(() => {
  "use strict";
  const HEIGHT = 280;
  const WHOLE = [1, 10, 100, 1e3, 1e4, 1e5, 1e6].flatMap((each) => [each, 2 * each, 5 * each]); // there is no half a step

  class Curve extends HTMLElement {
    static observedAttributes = ["data-series"];

    connectedCallback() {
      if (this.shadowRoot) return this.draw();
      const root = this.attachShadow({ mode: "open" });
      for (const address of this.dataset.styles.split(" ")) {
        const style = document.createElement("link");
        style.rel = "stylesheet";
        style.href = address;
        root.append(style);
      }
      this.place = document.createElement("div");
      root.append(this.place);
      this.sizes = new ResizeObserver(() => this.plot && this.plot.setSize(this.size()));
      this.sizes.observe(this);
      this.draw();
    }

    disconnectedCallback() {
      if (this.plot) this.plot.destroy();
      this.plot = undefined;
    }

    attributeChangedCallback() {
      if (this.place) this.draw();
    }

    size() {
      return { width: Math.max(200, this.clientWidth), height: HEIGHT };
    }

    draw() {
      const series = JSON.parse(this.dataset.series);
      const steps = [...new Set(series.flatMap((each) => each.points.map(([x]) => x)))].sort((a, b) => a - b);
      const columns = series.map((each) => {
        const known = new Map(each.points);
        return steps.map((step) => (known.has(step) ? known.get(step) : null));
      });
      this.place.dataset.points = String(steps.length);
      const shape = series.map((each) => `${each.name}/${each.role}/${each.hue}`).join("|");
      if (this.plot && this.shape === shape) return this.plot.setData([steps, ...columns]);
      if (this.plot) this.plot.destroy();
      this.shape = shape;
      const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
      const axis = { stroke: color("--muted"), grid: { stroke: color("--line"), width: 1 }, ticks: { show: false }, font: "12px Inter Variable, sans-serif" };
      this.plot = new uPlot(
        {
          ...this.size(),
          scales: { x: { time: false } },
          axes: [{ ...axis, grid: { show: false }, incrs: WHOLE }, { ...axis, size: 56 }],
          cursor: { points: { size: 7 }, drag: { x: true, y: false } },
          legend: { live: true, markers: { show: false } },
          series: [
            { label: "step" },
            ...series.map((each) => ({
              label: each.name,
              stroke: color(`--hue-${each.hue}`),
              width: 2,
              dash: each.role === "validation" ? [5, 4] : undefined,
              spanGaps: true,
              points: { show: each.points.length < 3 },
              value: (_, value) => (value === null || value === undefined ? "–" : value.toPrecision(4)),
            })),
          ],
        },
        [steps, ...columns],
        this.place,
      );
    }

    redraw() {
      this.shape = "";
      this.draw();
    }
  }

  customElements.define("trimtab-curve", Curve);
})();
