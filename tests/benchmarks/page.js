// Runs in the page that is measured, before anything of its own. Clocks are the page's, so that nothing of what drives
// the browser is in them: they begin with the navigation, or with the event that the browser was sent, and end one frame
// after all pictures that are waited for are decoded.
(() => {
  const LONGEST = 30000;
  performance.setResourceTimingBufferSize(100000); // 250 are kept otherwise
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const pictures = (root) => all("img.pixels", root);
  const loaded = (picture) => picture.complete && picture.naturalWidth > 0;
  const seen = (element) => {
    const box = element.getBoundingClientRect();
    return box.height > 0 && box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth;
  };
  const first = (found, count) => (found.length >= count && found.slice(0, count).every(loaded) ? found.slice(0, count) : null);
  const together = (parts) => (parts.length && parts.every(Boolean) ? parts.flat() : null);

  // Each gives the pictures that it consists of once all of it is there, and null before.
  const conditions = {
    /** Classes with names, and the first patches that can be seen without scrolling. */
    useful: () => (all(".card h3 a").some((each) => each.textContent) ? first(pictures(document).filter(seen), 6) : null),
    /** Every class that can be seen has its patches. */
    whole: () => together(all(".card").filter(seen).map((card) => together(pictures(card).filter(seen).map((each) => first([each], 1))))),
    /** Both subrows of a class. */
    subrows: ({ name }) =>
      document.querySelector("h1")?.textContent === name && all(".side-of").length === 2
        ? together(all(".side-of").map((side) => first(pictures(side), 7)))
        : null,
    /** A patch is opened: its image, the box around it, the evidence over it. */
    opened: ({ patch, image }) => {
      const panel = document.querySelector(".inspector");
      const shown = panel?.querySelector(".picture img");
      const right = shown?.src.includes(`/images/${image}.png`) && all(".number", panel).some((each) => each.textContent === String(patch));
      const drawn = right && panel.querySelector(".picture .box") && panel.querySelector(".picture canvas");
      return drawn ? first([shown], 1) : null;
    },
    /** More patches in each column that has any more. */
    morePatches: ({ before }) =>
      together(all(".side-of").map((side, place) => (/That is all/.test(side.textContent) ? [] : first(pictures(side).slice(before[place]), 6)))),
    /** More classes, of which the first has its patches. */
    moreClasses: ({ before }) => {
      const card = all(".card")[before];
      return card ? first(pictures(card), 6) : null;
    },
    /** The classes that have a text in their name, once the service has said so. */
    listed: ({ text }) => {
      const asked = performance.getEntriesByType("resource").some((each) => {
        const address = new URL(each.name);
        return address.pathname.endsWith("/classes") && address.searchParams.get("search") === text && each.responseEnd > 0;
      });
      const options = all("ul.options:not([hidden]) [role=option] span:first-child");
      return asked && options.length && options.every((each) => each.textContent.toLowerCase().includes(text)) ? [] : null;
    },
  };

  const frame = () => new Promise(requestAnimationFrame);
  /** After what the frame has drawn: a frame's callbacks run before it is painted. */
  const painted = async () => {
    await frame();
    const channel = new MessageChannel();
    await new Promise((done) => {
      channel.port1.onmessage = done;
      channel.port2.postMessage(null);
    });
    return performance.now();
  };
  const until = async (condition, values = {}) => {
    const latest = performance.now() + LONGEST;
    for (;;) {
      const found = conditions[condition](values);
      if (found) {
        await Promise.all(found.map((picture) => picture.decode().catch(() => {})));
        return painted();
      }
      if (performance.now() > latest) throw new Error(`not drawn: ${condition} ${JSON.stringify(values)}`);
      await frame();
    }
  };
  const entries = { paint: [], "largest-contentful-paint": [] };
  for (const type of Object.keys(entries)) {
    new PerformanceObserver((list) => entries[type].push(...list.getEntries())).observe({ type, buffered: true });
  }
  const bench = { until };
  const between = (begin, end) => ({ begin, end, ms: end - begin });

  /** Begin with the next event of a kind; of keys, with Enter. */
  bench.arm = (kind, condition, values) => {
    const event = new Promise((came) => {
      const heard = (each) => {
        if (kind === "keydown" && each.key !== "Enter") return;
        removeEventListener(kind, heard, { capture: true });
        came(each);
      };
      addEventListener(kind, heard, { capture: true });
    });
    bench.result = event.then(async ({ timeStamp }) => between(timeStamp, await until(condition, values)));
    bench.result.catch(() => {});
  };
  /** Scroll to the end, and wait for what comes there. */
  bench.scroll = async (condition) => {
    const before = condition === "moreClasses" ? all(".card").length : all(".side-of").map((side) => pictures(side).length);
    const begin = performance.now();
    scrollTo(0, document.documentElement.scrollHeight);
    return between(begin, await until(condition, { before }));
  };
  /** What the browser itself says of the first drawing. */
  bench.paints = () => ({
    fcp: entries.paint.find((each) => each.name === "first-contentful-paint")?.startTime,
    lcp: entries["largest-contentful-paint"].at(-1)?.startTime,
  });
  /** Requests that were under way in a time: how long each waited for a connection, and for its answer. */
  bench.requests = ({ begin, end }) =>
    performance
      .getEntriesByType("resource")
      .filter((each) => each.startTime >= begin && each.startTime <= end && each.transferSize > 0)
      .map((each) => ({
        address: each.name,
        waited: each.requestStart - each.startTime,
        answered: each.responseEnd - each.requestStart,
      }));
  window.bench = bench;
  if (location.pathname === "/") {
    bench.useful = until("useful");
    bench.whole = until("whole");
    for (const each of [bench.useful, bench.whole]) each.catch(() => {});
  }
})();
