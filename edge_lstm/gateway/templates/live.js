"use strict";
const facts = JSON.parse(document.getElementById("facts").textContent);
const at = id => document.getElementById(id);
const KEPT = 120, LISTED = 200, WAIT_MS = 2000;
let token = facts.tokens ? sessionStorage.getItem("edge-lstm-token") || "" : "";
let chosen = "", socket = null, samples = [], streams = [], turn = 0, drawing = false;

async function get(path) {
  const reply = await fetch(path, token ? {headers: {Authorization: "Bearer " + token}} : {});
  if (reply.status === 401) {
    token = "";
    sessionStorage.removeItem("edge-lstm-token");
    say("This token is not valid.");
    at("login").hidden = false;
    at("main").hidden = at("tiles").hidden = true;
  }
  if (!reply.ok) throw new Error("status " + reply.status);
  return reply.json();
}

function say(text) { at("said").textContent = text; }
function make(tag, text, kind, inside) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  if (inside) inside.append(made);
  return made;
}
function draw(tag, attributes, inside, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  inside.append(made);
  return made;
}
const figure = value => value === null || value === undefined ? "-" : String(Number(value.toPrecision(4)));
const percent = share => (100 * share).toFixed(share < 0.1 ? 1 : 0) + " %";

async function refresh() {
  if (facts.tokens && !token) return;
  try {
    streams = await get("/streams");
  } catch (error) {
    if (token || !facts.tokens) say("The gateway does not answer.");
    return;
  }
  at("main").hidden = at("tiles").hidden = false;
  const alarms = streams.filter(stream => stream.alarm).length;
  at("streams").textContent = streams.length.toLocaleString("en");
  at("rows").textContent = streams.reduce((sum, s) => sum + s.rows, 0).toLocaleString("en") + " rows";
  at("alarms").textContent = alarms;
  at("drifted").textContent = streams.filter(stream => stream.drifted).length;
  say(!streams.length ? "Waiting for the first row." : alarms ? alarms + (alarms > 1 ? " streams are" : " stream is")
    + " in alarm." : "No stream is in alarm.");
  list();
  if (!chosen && streams.length) choose(location.hash.slice(1) || at("table").querySelector("button").textContent);
  else if (chosen) details();
}

function list() {
  const part = at("filter").value.toLowerCase();
  const found = streams.filter(stream => stream.id.toLowerCase().includes(part));
  found.sort((a, b) => b.alarm - a.alarm || Number(a.id > b.id) - Number(a.id < b.id));
  at("table").replaceChildren(...found.slice(0, LISTED).map(stream => {
    const row = make("tr"), head = make("th", undefined, "", row);
    head.scope = "row";
    if (stream.id === chosen) row.setAttribute("aria-current", "true");
    make("button", stream.id, "stream", head).onclick = () => choose(stream.id);
    make("td", stream.alarm ? "ALARM" : "normal", "words " + (stream.alarm ? "bad" : "good"), row);
    make("td", figure(stream.score), "figure", row);
    make("td", figure(stream.threshold), "figure", row);
    make("td", stream.time || "-", "words", row);
    make("td", stream.drifted ? stream.drifted + " drifted" : "as calibrated", "words" + (stream.drifted ? " bad" : ""), row);
    return row;
  }));
  at("more").textContent = found.length > LISTED ? "the first " + LISTED + " of " + found.length : "";
}

async function choose(stream) {
  chosen = stream;
  samples = [];
  list();
  await details(true);
  listen();
}

async function details(all = false) {
  const asked = chosen;
  let found;
  try { found = await get("/streams/" + encodeURIComponent(asked)); } catch (error) { return; }
  if (asked !== chosen) return;
  if (all) {
    samples = found.recent;
    show();
  }
  for (const id of ["score", "contributions", "channels", "events", "drift"]) at(id).hidden = false;
  at("name").textContent = asked;
  at("eventrows").replaceChildren(...found.alarms.map(event => {
    const row = make("tr");
    make("th", event.start, "", row).scope = "row";
    make("td", event.stop || "lasts", "words" + (event.stop ? "" : " bad"), row);
    make("td", figure(event.peak_score), "figure", row);
    make("td", figure(event.threshold), "figure", row);
    const shares = Object.entries(event.contributions).sort((a, b) => b[1] - a[1]).slice(0, 2);
    make("td", shares.map(([name, share]) => name + " " + percent(share)).join(", "), "words", row);
    return row;
  }));
  if (!found.alarms.length) make("td", "none so far", "", make("tr", undefined, "", at("eventrows"))).colSpan = 5;
  at("driftrows").replaceChildren(...Object.entries(found.drift).map(([name, drift]) => {
    const row = make("tr");
    make("th", name, "", row).scope = "row";
    for (const value of [drift.mean, drift.spread]) make("td", value.toFixed(2), "figure", row);
    make("td", percent(drift.saturated), "figure", row);
    make("td", drift.drifted ? "drifted" : "as calibrated", "words " + (drift.drifted ? "bad" : "good"), row);
    return row;
  }));
}

function listen() {
  if (socket) socket.close();
  const mine = ++turn;
  const address = new URL("/streams/" + encodeURIComponent(chosen) + "/live", location.href);
  address.protocol = address.protocol.replace("http", "ws");
  socket = new WebSocket(address);
  socket.onopen = () => { if (token) socket.send(JSON.stringify({token})); };
  socket.onmessage = message => {
    const sample = JSON.parse(message.data);
    if (mine !== turn || sample.row === undefined) return;
    samples.push(sample);
    if (samples.length > KEPT) samples.shift();
    if (!drawing) {
      drawing = true;
      setTimeout(() => { drawing = false; show(); }, 100);
    }
  };
  socket.onclose = () => { if (mine === turn) setTimeout(() => { if (mine === turn) choose(chosen); }, WAIT_MS); };
}

function show() {
  const last = samples[samples.length - 1];
  if (!last) return;
  at("state").textContent = last.alarm ? "ALARM" : "normal";
  at("state").className = "state " + (last.alarm ? "alarm" : "normal");
  at("last").textContent = "score " + figure(last.score) + ", threshold " + figure(last.threshold) + " at " + last.time;
  const wide = at("score").clientWidth > 600;
  plot(at("scoreplot"), wide ? 1000 : 340, wide ? 220 : 180, "", [
    [samples.map(s => s.threshold), "var(--threshold)", "8 3"], [samples.map(s => s.score), "var(--int8)", ""]], true);
  const places = at("plots");
  if (places.childElementCount !== facts.channels.length)
    places.replaceChildren(...facts.channels.map(channel => {
      const place = make("div", undefined, "plot");
      place.setAttribute("role", "img");
      place.setAttribute("aria-label", channel.name + " over the last rows");
      return place;
    }));
  facts.channels.forEach((channel, index) => plot(places.children[index], wide ? 480 : 340, 130,
    channel.name + (channel.unit ? " [" + channel.unit + "]" : ""),
    [[samples.map(s => s.values[channel.name]), "var(--measured)", ""]], false));
  at("shares").replaceChildren(...facts.channels.map(channel => {
    const row = make("tr"), share = last.contributions[channel.name];
    make("th", channel.name, "", row).scope = "row";
    const value = last.values[channel.name];
    make("td", value === null ? "missing" : figure(value) + " " + channel.unit, "figure", row);
    const cell = make("td", undefined, "words", row);
    cell.style.setProperty("--share", (100 * share).toFixed(1) + "%");
    make("span", undefined, "bar", cell);
    cell.append(percent(share));
    return row;
  }));
}

function plot(place, width, height, title, lines, fromZero) {
  const left = 48, right = 8, top = title ? 22 : 8, bottom = 22;
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 " + width + " " + height);
  const values = lines.flatMap(([line]) => line).filter(value => value !== null);
  let low = fromZero ? 0 : Math.min(...values), high = Math.max(...values) * (fromZero ? 1.1 : 1);
  if (!values.length) low = 0, high = 1;
  if (high - low < 1e-9) low -= 1, high += 1;
  const x = index => left + (width - left - right) * index / Math.max(samples.length - 1, 1);
  const y = value => top + (height - top - bottom) * (high - value) / (high - low);
  if (title) draw("text", {x: 0, y: 13, class: "title"}, svg, title);
  for (const value of [low, (low + high) / 2, high]) {
    draw("line", {x1: left, x2: width - right, y1: y(value), y2: y(value), stroke: "var(--grid)"}, svg);
    draw("text", {x: left - 6, y: y(value) + 4, "text-anchor": "end"}, svg, String(Number(value.toPrecision(3))));
  }
  let start = -1;
  samples.forEach((sample, index) => {
    if (sample.alarm && start < 0) start = index;
    if (start >= 0 && (!sample.alarm || index === samples.length - 1)) {
      const wide = Math.max(x(index) - x(start), 2);
      draw("rect", {x: x(start), y: top, width: wide, height: height - top - bottom, class: "alarm"}, svg);
      start = -1;
    }
  });
  for (const [line, colour, dash] of lines) {
    let path = "", pen = "M";
    line.forEach((value, index) => {
      if (value !== null) path += pen + x(index).toFixed(1) + " " + y(value).toFixed(1);
      pen = value === null ? "M" : "L";
    });
    draw("path", {d: path || "M0 0", stroke: colour, "stroke-width": 1.6, "stroke-dasharray": dash}, svg);
  }
  draw("text", {x: left, y: height - 6}, svg, samples.length + " rows");
  draw("text", {x: width - right, y: height - 6, "text-anchor": "end"}, svg, "now");
  place.replaceChildren(svg);
}

at("search").onsubmit = event => event.preventDefault();
at("filter").oninput = list;
if (facts.tokens) {
  at("login").hidden = Boolean(token);
  at("login").onsubmit = event => {
    event.preventDefault();
    token = at("token").value;
    sessionStorage.setItem("edge-lstm-token", token);
    at("login").hidden = true;
    at("token").value = "";
    refresh();
  };
}
addEventListener("resize", show);
refresh();
setInterval(refresh, WAIT_MS);
