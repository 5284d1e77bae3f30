// The views of an inspection: filters, order and cards. All text is set as text, never as HTML.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("views-data").textContent);
  const PAGE = 24;
  const byId = (id) => document.getElementById(id);
  const controls = ["label", "op", "setting", "magnitude", "most", "order"];
  const list = byId("views"), status = byId("status"), more = byId("more");
  let shown = PAGE;

  const element = (tag, className, text) => {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const percent = (value) => (100 * value).toFixed(value > 0 && value < 0.0995 ? 1 : 0) + " %";

  const addOptions = (id, values, text) => {
    for (const value of values) {
      const option = element("option", "", text(value));
      option.value = String(value);
      byId(id).append(option);
    }
  };
  const different = (values) => [...new Set(values)];
  const labels = different(data.views.map((view) => view.label)).sort((a, b) => data.names[a].localeCompare(data.names[b]));
  addOptions("label", labels, (value) => data.names[value]);
  addOptions("op", different(data.views.flatMap((view) => view.ops)).sort(), String);
  addOptions("setting", different(data.views.map((view) => view.setting)), String);
  const magnitudes = different(data.views.map((view) => view.magnitude)).filter((value) => value !== null);
  addOptions("magnitude", magnitudes.sort((a, b) => a - b), String);

  const picture = (source, text) => {
    const image = element("img");
    image.src = source;
    image.alt = text;
    image.loading = "lazy";
    return image;
  };

  const bar = ([index, prob, soft], label) => {
    const row = element("div", index === label ? "bar of-label" : "bar");
    row.append(element("span", "bar-name", data.names[index]));
    const lanes = element("span", "lanes");
    for (const [kind, value] of [["teacher", prob], ["soft", soft]]) {
      const lane = element("span", "lane " + kind);
      lane.style.width = 100 * value + "%";
      lanes.append(lane);
    }
    row.append(lanes, element("span", "bar-value", percent(prob) + " / " + (soft ? percent(soft) : "–")));
    return row;
  };

  const card = (view) => {
    const item = element("li", "card");
    const pair = element("div", "pair");
    const name = data.names[view.label];
    pair.append(picture(data.pictures[view.image], "unaugmented image of " + name));
    pair.append(element("span", "", "→"), picture(view.view, "view: " + view.text));
    const heading = element("h3", "", name + ": " + percent(view.before) + " → " + percent(view.prob));
    const at = view.magnitude === null ? "" : ", " + (view.setting === "single op" ? "level " : "magnitude ") + view.magnitude;
    const details = element("details");
    details.append(element("summary", "", "Reproduce"), element("p", "soft", view.name), element("code", "", view.command));
    item.append(pair, heading, element("p", "soft", view.text), element("p", "soft", view.setting + at));
    for (const each of view.bars) item.append(bar(each, view.label));
    item.append(details);
    return item;
  };

  const orders = {
    lowest: (a, b) => a.prob - b.prob,
    drop: (a, b) => b.before - b.prob - (a.before - a.prob),
    highest: (a, b) => b.prob - a.prob,
    label: (a, b) => data.names[a.label].localeCompare(data.names[b.label]) || a.prob - b.prob,
    magnitude: (a, b) => (b.magnitude ?? 0) - (a.magnitude ?? 0) || a.prob - b.prob,
    op: (a, b) => a.ops.join().localeCompare(b.ops.join()) || a.prob - b.prob,
  };

  const selected = () => {
    const value = Object.fromEntries(controls.map((id) => [id, byId(id).value]));
    const most = value.most === "" ? 100 : Number(value.most);
    const matches = (view) =>
      (value.label === "" || String(view.label) === value.label) &&
      (value.op === "" || view.ops.includes(value.op)) &&
      (value.setting === "" || view.setting === value.setting) &&
      (value.magnitude === "" || String(view.magnitude) === value.magnitude) &&
      100 * view.prob <= most;
    return data.views.filter(matches).sort(orders[value.order]);
  };

  const draw = () => {
    const views = selected();
    const visible = Math.min(shown, views.length);
    list.replaceChildren(...views.slice(0, visible).map(card));
    status.textContent = visible + " of " + views.length + " matching views shown, " + data.views.length + " on this page";
    more.hidden = visible === views.length;
  };

  for (const id of controls) {
    byId(id).addEventListener("input", () => {
      shown = PAGE;
      draw();
    });
  }
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("filters").addEventListener("reset", () => {
    shown = PAGE;
    setTimeout(draw);
  });
  more.addEventListener("click", () => {
    const first = list.children.length;
    shown += PAGE;
    draw();
    const next = list.children[first];
    if (next) {
      next.tabIndex = -1;
      next.focus();
    }
  });
  draw();
})();
