/* What makes pages live and calm. Everything works without this file; see docs/dashboard.md. */
(() => {
  "use strict";
  const find = (selector, within = document) => within.querySelector(selector);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const live = find("#live");
  const newer = find("#newer");
  let held = null;

  /* One stream per tab, and none while nobody looks: browsers allow six connections to a host. */
  class TabStream {
    constructor(url) {
      this.url = url; this.listeners = []; this.wait = 500; this.closed = false;
      this.review = () => this.look();
      document.addEventListener("visibilitychange", this.review);
      addEventListener("pagehide", this.letGo = () => this.drop());
      addEventListener("pageshow", this.review);
      this.look();
    }
    get readyState() { return this.closed ? 2 : this.inner ? this.inner.readyState : 0; }
    look() {
      clearTimeout(this.timer);
      if (this.closed) return;
      if (document.hidden) this.timer = setTimeout(() => this.drop(), 1000);
      else if (!this.inner) this.open();
    }
    open() {
      const source = this.inner = new EventSource(this.url);
      for (const [name, heard] of this.listeners) source.addEventListener(name, heard);
      source.addEventListener("away", () => say(false));
      source.addEventListener("back", () => say(true));
      source.onopen = (event) => { this.wait = 500; this.onopen?.(event); };
      source.addEventListener("page", () => say(true));
      source.onerror = () => {
        say(false);
        if (source.readyState !== 2) return;
        this.drop();
        this.timer = setTimeout(() => this.look(), this.wait);
        this.wait = Math.min(this.wait * 2, 8000);
      };
    }
    drop() { this.inner?.close(); this.inner = null; }
    addEventListener(name, heard) { this.listeners.push([name, heard]); this.inner?.addEventListener(name, heard); }
    removeEventListener(name, heard) {
      this.listeners = this.listeners.filter((one) => one[0] !== name || one[1] !== heard);
      this.inner?.removeEventListener(name, heard);
    }
    close() { this.closed = true; this.drop(); document.removeEventListener("visibilitychange", this.review); removeEventListener("pageshow", this.review); removeEventListener("pagehide", this.letGo); }
  }
  htmx.createEventSource = (url) => new TabStream(url);
  const say = (here) => { find("#away").hidden = here; };

  const changed = (field) => field.options
    ? field.selectedIndex !== Math.max(0, [...field.options].findIndex((option) => option.defaultSelected))
    : field.type === "checkbox" ? field.checked !== field.defaultChecked : field.value !== field.defaultValue;

  /* While somebody selects, reads, writes or has scrolled down a list, nothing moves under their hands. */
  const busy = () => {
    const focused = document.activeElement;
    return Boolean(
      find("details[open]", live) ||
      all("input, select, textarea", live).some(changed) ||
      (focused && focused !== live && live.contains(focused)) ||
      (find("#rows", live) && scrollY > 40) ||
      String(getSelection()).length,
    );
  };
  const hold = (html) => {
    held = html;
    const page = document.createElement("template");
    page.innerHTML = html;
    const count = all("#rows > tr", page.content).filter((row) => !document.getElementById(row.id)).length;
    const text = count ? `${count} newer` : "newer";
    if (newer.hidden) find("#announce").textContent = "There is something newer.";
    newer.textContent = text;
    newer.hidden = false;
  };
  const show = () => {
    if (held === null) return;
    const html = held;
    held = null;
    newer.hidden = true;
    Idiomorph.morph(live, html, { morphStyle: "innerHTML" });
    count();
  };
  document.body.addEventListener("htmx:sseBeforeMessage", (event) => {
    if (event.detail.type !== "page") return;
    if (busy()) { event.preventDefault(); hold(event.detail.data); } else { held = null; newer.hidden = true; }
  });
  const settle = () => setTimeout(() => { if (held !== null && !busy()) show(); }, 150);
  for (const name of ["focusout", "change", "scroll", "toggle"]) document.addEventListener(name, settle, { passive: true, capture: true });
  newer.addEventListener("click", () => {
    for (const form of all("form", live)) form.reset();
    for (const open of all("details[open]", live)) open.open = false;
    scrollTo({ top: 0 });
    show();
    live.focus({ preventScroll: true });
  });

  const where = find(".top nav [aria-current]");
  if (where) where.parentElement.scrollLeft = where.offsetLeft - where.parentElement.offsetLeft - 60;

  /* Selection. */
  const count = () => {
    const chosen = all("input[name=ids]:checked", live).length;
    const told = find("#selected");
    if (told) told.textContent = chosen ? `${chosen} selected` : "Selected";
  };
  live.addEventListener("change", (event) => {
    if (event.target.id === "every") for (const box of all("input[name=ids]", live)) box.checked = event.target.checked;
    count();
  });

  /* Keyboard. */
  const rows = () => all("tbody tr[id]", live).filter((row) => find("a", row));
  const here = () => document.activeElement?.closest?.("tr[id]");
  const go = (step) => {
    const found = rows();
    const at = found.indexOf(here());
    const next = found[Math.max(0, Math.min(found.length - 1, at < 0 ? 0 : at + step))];
    if (next) find("a", next).focus();
  };
  const keys = {
    "/": () => { const box = find("#q"); box?.focus(); box?.select(); },
    j: () => go(1),
    k: () => go(-1),
    x: () => { const box = here() && find("input[type=checkbox]", here()); if (box) { box.checked = !box.checked; count(); settle(); } },
    ".": () => newer.click(),
    Escape: () => { for (const box of all("input:checked", live)) box.checked = false; count(); document.activeElement?.blur?.(); settle(); },
  };
  document.addEventListener("keydown", (event) => {
    const writing = event.target.closest?.("input:not([type=checkbox]), textarea, select");
    if (event.ctrlKey || event.metaKey || event.altKey || (writing && event.key !== "Escape")) return;
    const does = keys[event.key];
    if (does) { event.preventDefault(); does(); }
  });
})();
