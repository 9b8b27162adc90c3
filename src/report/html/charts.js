"use strict";
// Charts of a report: SVG drawn from the data in the page. Knows scales, curves and heat maps; does not know what is measured
// beyond the names that it is given.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const tip = document.getElementById("tip");
  const hidden = new Set();
  const heat = { name: 0, of: "running" };

  const WIDTH = 560, HEIGHT = 320;
  const FRAME = { left: 62, right: 14, top: 12, bottom: 44 };
  const DASHES = ["", "9 5", "2 4", "11 4 2 4", "18 6"];
  const color = (index) => `var(--c${index % 7})`;
  const dash = (index) => DASHES[index % DASHES.length];

  const node = (name, attributes = {}, text) => {
    const made = document.createElementNS("http" + "://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  };

  const plain = (value) => {
    if (value === 0) return "0";
    const size = Math.abs(value);
    if (size >= 100) return Math.round(value).toLocaleString("en");
    return String(Number(value.toPrecision(3)));
  };
  const time = (ms) => (ms >= 1000 ? `${plain(ms / 1000)} s` : `${plain(ms)} ms`);

  // A scale from values to pixels, with its ticks. "tail" stretches shares towards one: each unit is ten times fewer beyond.
  function scale(kind, low, high, from, to) {
    const forward = { linear: (v) => v, log: Math.log10, tail: (v) => -Math.log10(1 - Math.min(v, 0.99995)) }[kind];
    const [a, b] = [forward(low), forward(high)];
    const at = (value) => from + ((forward(value) - a) / (b - a || 1)) * (to - from);
    let ticks = [];
    if (kind === "tail") ticks = [0, 0.5, 0.9, 0.99, 0.999, 0.9999].filter((v) => v >= low && v <= high);
    else if (kind === "log") {
      for (let power = Math.floor(a); power <= Math.ceil(b); power++) {
        for (const digit of b - a > 2.5 ? [1] : b - a > 1 ? [1, 3] : b - a > 0.85 ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9]) {
          const value = digit * 10 ** power;
          if (value >= low && value <= high) ticks.push(value);
        }
      }
    } else {
      const rough = (high - low) / 6 || 1;
      const power = 10 ** Math.floor(Math.log10(rough));
      const step = [1, 2, 5, 10].map((digit) => digit * power).find((candidate) => candidate >= rough);
      for (let value = Math.ceil(low / step) * step; value <= high + step * 1e-9; value += step) ticks.push(Number(value.toPrecision(12)));
    }
    return { at, ticks };
  }

  const range = (values) => [Math.min(...values), Math.max(...values)];

  function show(event, text) {
    tip.textContent = text;
    tip.hidden = false;
    const { width, height } = tip.getBoundingClientRect();
    tip.style.left = `${Math.min(event.clientX + 14, innerWidth - width - 8)}px`;
    tip.style.top = `${Math.max(8, event.clientY - height - 12)}px`;
  }
  const hide = () => { tip.hidden = true; };

  function put(figure, content) {
    figure.querySelectorAll("svg, .empty, canvas").forEach((old) => old.remove());
    figure.append(content);
  }
  function nothing(figure, why) {
    const text = document.createElement("p");
    text.className = "empty";
    text.textContent = why;
    put(figure, text);
  }

  // Lines of (x, y), one a policy; `lines[i]` is empty where there is none.
  function chart(figure, lines, options) {
    const shown = lines.map((line, index) => (hidden.has(index) ? [] : line));
    const points = shown.flat();
    if (points.length === 0) return nothing(figure, options.empty ?? "Nothing to show.");
    let [xLow, xHigh] = options.x.range ?? range(points.map((point) => point[0]));
    let [yLow, yHigh] = options.y.range ?? range(points.map((point) => point[1]));
    if (options.y.kind === "linear" && !options.y.range) [yLow, yHigh] = [0, yHigh * 1.06 || 1];
    if (options.limit !== undefined && options.limit !== null) {
      if (options.limit.along === "x") xHigh = Math.max(xHigh, options.limit.at * 1.02);
      else yHigh = Math.max(yHigh, options.limit.at * 1.05);
    }
    const x = scale(options.x.kind, xLow, xHigh, FRAME.left, WIDTH - FRAME.right);
    const y = scale(options.y.kind, yLow, yHigh, HEIGHT - FRAME.bottom, FRAME.top);
    const svg = node("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": options.label });
    for (const tick of x.ticks) {
      svg.append(node("line", { class: "grid", x1: x.at(tick), x2: x.at(tick), y1: FRAME.top, y2: HEIGHT - FRAME.bottom }));
      const anchor = x.at(tick) > WIDTH - 40 ? "end" : "middle";
      svg.append(node("text", { x: x.at(tick), y: HEIGHT - FRAME.bottom + 16, "text-anchor": anchor }, options.x.tell(tick)));
    }
    for (const tick of y.ticks) {
      svg.append(node("line", { class: "grid", x1: FRAME.left, x2: WIDTH - FRAME.right, y1: y.at(tick), y2: y.at(tick) }));
      svg.append(node("text", { x: FRAME.left - 7, y: y.at(tick) + 4, "text-anchor": "end" }, options.y.tell(tick)));
    }
    svg.append(node("text", { x: (FRAME.left + WIDTH - FRAME.right) / 2, y: HEIGHT - 8, "text-anchor": "middle" }, options.x.name));
    if (options.limit) {
      const along = options.limit.along === "x" ? x.at(options.limit.at) : y.at(options.limit.at);
      const ends = options.limit.along === "x"
        ? { x1: along, x2: along, y1: FRAME.top, y2: HEIGHT - FRAME.bottom }
        : { x1: FRAME.left, x2: WIDTH - FRAME.right, y1: along, y2: along };
      svg.append(node("line", { ...ends, stroke: "var(--soft)", "stroke-dasharray": "6 4", "stroke-width": 1.5 }));
    }
    shown.forEach((line, index) => {
      if (line.length === 0) return;
      const path = line.map((point, place) => `${place ? "L" : "M"}${x.at(point[0]).toFixed(1)} ${y.at(point[1]).toFixed(1)}`);
      svg.append(node("path", { class: "curve", d: path.join(""), stroke: color(index), "stroke-dasharray": dash(index), "data-name": data.names[index] ?? options.label }));
    });
    for (const [index, point] of options.rings ?? []) {
      if (!hidden.has(index) && point) {
        svg.append(node("circle", { cx: x.at(point[0]), cy: y.at(point[1]), r: 7, fill: "none", stroke: color(index), "stroke-width": 2 }));
      }
    }
    const cursor = node("line", { class: "grid", y1: FRAME.top, y2: HEIGHT - FRAME.bottom, visibility: "hidden", stroke: "var(--soft)" });
    svg.append(cursor);
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const px = ((event.clientX - box.left) / box.width) * WIDTH;
      const py = ((event.clientY - box.top) / box.height) * HEIGHT;
      const told = [];
      let where = px;
      shown.forEach((line, index) => {
        if (line.length === 0) return;
        const off = options.across === "y" ? (point) => Math.abs(y.at(point[1]) - py) : (point) => Math.abs(x.at(point[0]) - px);
        const nearest = line.reduce((best, point) => (off(point) < off(best) ? point : best));
        if (options.across !== "y") where = x.at(nearest[0]);
        told.push([options.tell(nearest), data.names[index] && lines.length > 1 ? data.names[index] : ""].filter(Boolean).join("  "));
      });
      cursor.setAttribute("x1", where);
      cursor.setAttribute("x2", where);
      cursor.setAttribute("visibility", options.across === "y" ? "hidden" : "visible");
      show(event, told.join("\n"));
    });
    svg.addEventListener("pointerleave", () => { cursor.setAttribute("visibility", "hidden"); hide(); });
    put(figure, svg);
  }

  const share = (value) => `${Number((value * 100).toFixed(2))} %`;
  const latencyScale = (lines) => {
    const [low, high] = range(lines.flat().map((point) => point[0]).filter((value) => value > 0));
    return high / low > 12 ? "log" : "linear";
  };

  const charts = {
    e2e_cdf: (figure) => distribution(figure, data.e2e_cdf, data.limits.e2e_ms),
    ttft_cdf: (figure) => distribution(figure, data.ttft_cdf, data.limits.ttft_ms),
    tail_over_time: (figure) => {
      const told = (key) => data.windows.flat().filter((window) => window[key] !== null).length;
      const key = told("p99") * 2 >= data.windows.flat().length ? "p99" : "p90";
      figure.querySelector("figcaption").textContent = `End-to-end latency, ${key.toUpperCase()} of each window`;
      overTime(figure, key, { kind: "log", tell: time, name: key.toUpperCase() }, "Windows hold too few requests for a tail.");
    },
    rate_over_time: (figure) => {
      const lines = [data.windows[0].map((window) => [window.at, window.rate])];
      chart(figure, lines, {
        label: "Requests offered a second over time", x: { kind: "linear", tell: plain, name: "sent at, seconds" },
        y: { kind: "linear", tell: plain }, tell: ([at, rate]) => `${plain(rate)} requests/s at ${plain(at)} s`,
      });
    },
    burn_over_time: (figure) =>
      overTime(figure, "burn", { kind: "linear", tell: plain, name: "burn rate", limit: { along: "y", at: 1 } }, "The scenario has no objectives."),
    load: (figure) => {
      const lines = data.load.lines.map((line) => line.points);
      const name = data.load.is_load ? "load, % of what the fleet can bear" : "requests offered a second";
      chart(figure, lines, {
        label: "E2E P99 against load", empty: data.load.empty,
        x: { kind: "linear", tell: plain, name }, y: { kind: "log", tell: time },
        rings: data.load.lines.map((line, index) => [index, line.knee]),
        tell: ([load, ms]) => `${time(ms)} at ${plain(load)}${data.load.is_load ? " %" : "/s"}`,
      });
    },
    heat: heatMap,
    tail_e2e: (figure) => bars(figure, data.tail.e2e),
    tail_ttft: (figure) => bars(figure, data.tail.ttft),
  };

  function distribution(figure, lines, limit) {
    if (lines.flat().length === 0) return nothing(figure, "No request got an answer.");
    const highest = Math.max(...lines.flat().map((point) => Math.min(point[1], 0.9999)));
    chart(figure, lines, {
      label: figure.querySelector("figcaption").textContent, across: "y",
      x: { kind: latencyScale(lines), tell: time, name: "latency" },
      y: { kind: "tail", range: [0, Math.max(highest, 0.9)], tell: share },
      limit: limit === null ? null : { along: "x", at: limit },
      tell: ([ms, part]) => `${share(part)} within ${time(ms)}`,
    });
  }

  function overTime(figure, key, y, empty) {
    const lines = data.windows.map((windows) =>
      windows.filter((window) => window[key] !== null).map((window) => [window.at, window[key]]));
    chart(figure, lines, {
      label: `${y.name} over time`, empty, x: { kind: "linear", tell: plain, name: "sent at, seconds" }, y, limit: y.limit,
      tell: ([at, value]) => `${y.tell(value)} at ${plain(at)} s`,
    });
  }

  // Parts of a latency, stacked, one bar a group of requests.
  function bars(figure, groups) {
    if (!groups) return nothing(figure, data.tail_empty);
    const height = 34, gap = 16, left = 140, names = data.tail.parts;
    const used = names.map((_, part) => part).filter((part) => groups.some(([, parts]) => Math.abs(parts[part]) >= 0.005));
    const legend = 20 * Math.ceil(used.length / 2) + 12;
    const all = groups.length * (height + gap) + 30 + legend;
    const longest = Math.max(...groups.map(([, parts]) => parts.reduce((sum, ms) => sum + Math.max(0, ms), 0)));
    const x = scale("linear", 0, longest, left, WIDTH - 20);
    const svg = node("svg", { viewBox: `0 0 ${WIDTH} ${all}`, role: "img", "aria-label": figure.querySelector("figcaption").textContent });
    const bottom = groups.length * (height + gap) + 4;
    for (const tick of x.ticks) {
      svg.append(node("line", { class: "grid", x1: x.at(tick), x2: x.at(tick), y1: 0, y2: bottom }));
      svg.append(node("text", { x: x.at(tick), y: bottom + 14, "text-anchor": "middle" }, time(tick)));
    }
    groups.forEach(([group, parts], row) => {
      const top = row * (height + gap) + 6;
      svg.append(node("text", { x: left - 8, y: top + height / 2 + 4, "text-anchor": "end" }, group));
      let from = 0;
      for (const part of used) {
        const ms = Math.max(0, parts[part]);
        const bar = node("rect", { x: x.at(from), y: top, width: Math.max(0, x.at(from + ms) - x.at(from)), height, fill: partColor(part) });
        bar.addEventListener("pointermove", (event) => show(event, `${names[part]}: ${time(parts[part])}`));
        bar.addEventListener("pointerleave", hide);
        svg.append(bar);
        from += ms;
      }
    });
    used.forEach((part, place) => {
      const at = { x: 20 + (place % 2) * (WIDTH / 2 - 10), y: bottom + 34 + 20 * Math.floor(place / 2) };
      svg.append(node("rect", { x: at.x, y: at.y - 10, width: 12, height: 12, fill: partColor(part) }));
      svg.append(node("text", { x: at.x + 18, y: at.y }, names[part]));
    });
    put(figure, svg);
  }
  const partColor = (part) =>
    ["#8a6d3b", "var(--soft)", "var(--c4)", "var(--line)", "var(--c5)", "var(--c1)", "var(--c2)", "var(--c3)", "var(--c0)", "var(--c6)", "#7b5fb5", "#a03030"][part];

  const HEATS = [["running", "running"], ["waiting", "waiting"], ["kv", "KV cache %"]];
  function heatMap(figure) {
    const map = data.replicas[heat.name];
    const [key, label] = HEATS.find(([known]) => known === heat.of);
    const caption = figure.querySelector("figcaption");
    if (!map || map.rows.length === 0 || map.rows[0][key].length === 0) return nothing(figure, "No steps were made.");
    const highest = Math.max(1, ...map.rows.flatMap((row) => row[key]));
    const fewer = map.all > map.rows.length ? `; the ${map.rows.length} of ${map.all} that waited most` : "";
    caption.textContent = `${data.names[heat.name]}: ${label}, up to ${plain(highest)}${fewer}`;
    const left = 70, width = 1120, row = Math.max(7, Math.min(26, 520 / map.rows.length));
    const columns = map.rows[0][key].length, cell = (width - left) / columns;
    const bottom = map.rows.length * row;
    const svg = node("svg", { viewBox: `0 0 ${width} ${bottom + 36}`, role: "img", "aria-label": caption.textContent });
    map.rows.forEach((replica, place) => {
      if (row >= 12 || place % 4 === 0) {
        svg.append(node("text", { x: left - 8, y: place * row + row / 2 + 4, "text-anchor": "end" }, `replica ${replica.replica}`));
      }
      replica[key].forEach((value, column) => {
        if (value === 0) return;
        // Square roots, so that few and many can be told apart beside very many.
        const depth = (0.08 + 0.92 * Math.sqrt(value / highest)).toFixed(3);
        svg.append(node("rect", { x: (left + column * cell).toFixed(2), y: place * row, width: (cell + 0.3).toFixed(2), height: row - 1, fill: `rgba(var(--heat), ${depth})` }));
      });
    });
    const x = scale("linear", 0, columns * map.column_s, left, width);
    for (const tick of x.ticks) svg.append(node("text", { x: x.at(tick), y: bottom + 14, "text-anchor": "middle" }, plain(tick)));
    svg.append(node("text", { x: (left + width) / 2, y: bottom + 32, "text-anchor": "middle" }, "seconds"));
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const column = Math.floor((((event.clientX - box.left) / box.width) * width - left) / cell);
      const place = Math.floor((((event.clientY - box.top) / box.height) * (bottom + 36)) / row);
      const replica = map.rows[place];
      if (!replica || column < 0 || column >= columns) return hide();
      show(event, `replica ${replica.replica} at ${plain(column * map.column_s)} s: ${replica[key][column]} ${label}`);
    });
    svg.addEventListener("pointerleave", hide);
    put(figure, svg);
  }

  function draw() {
    for (const figure of document.querySelectorAll("figure[data-chart]")) charts[figure.dataset.chart](figure);
  }

  function button(text, pressed, act) {
    const made = document.createElement("button");
    made.type = "button";
    made.setAttribute("aria-pressed", pressed);
    made.append(text);
    made.addEventListener("click", () => act(made));
    return made;
  }

  const policies = document.getElementById("policies");
  data.names.forEach((name, index) => {
    const made = button(name, true, () => {
      if (hidden.has(index)) hidden.delete(index); else hidden.add(index);
      made.setAttribute("aria-pressed", !hidden.has(index));
      draw();
    });
    const sample = node("svg", { viewBox: "0 0 26 10", style: "width:26px;height:10px" });
    sample.append(node("line", { x1: 1, x2: 25, y1: 5, y2: 5, stroke: color(index), "stroke-width": 3, "stroke-dasharray": dash(index) }));
    made.prepend(sample);
    policies.append(made);
  });

  const choices = document.getElementById("heat-choices");
  function choose() {
    choices.replaceChildren();
    data.names.forEach((name, index) => choices.append(button(name, heat.name === index, () => { heat.name = index; choose(); })));
    for (const [key, label] of HEATS) choices.append(button(label, heat.of === key, () => { heat.of = key; choose(); }));
    heatMap(document.querySelector('figure[data-chart="heat"]'));
  }

  choose();
  draw();
})();
