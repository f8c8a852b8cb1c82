// What the theme and the controls leave out for readers with a keyboard or a screen reader.
//
// ipywidgets draws a slider whose handle has neither a name nor a spoken value. Give it both: the name is the slider's
// label, the value is what its readout shows. Groups of buttons are named, say which one is chosen, and follow the arrow
// keys.
(function () {
  var PLAYER = { "fa-play": "Play", "fa-pause": "Pause", "fa-stop": "Stop", "fa-retweet": "Repeat" };
  function set(element, name, value) {
    if (element.getAttribute(name) !== value) { element.setAttribute(name, value); }
  }
  function label(root) {
    root.querySelectorAll(".widget-slider, .widget-hslider, .widget-vslider").forEach(function (slider) {
      var name = slider.querySelector(".widget-label");
      var readout = slider.querySelector(".widget-readout");
      slider.querySelectorAll(".noUi-handle").forEach(function (handle) {
        if (name) { set(handle, "aria-label", name.textContent.trim()); }
        if (readout) { set(handle, "aria-valuetext", readout.textContent.trim()); }
      });
      if (readout) { set(readout, "aria-label", (name ? name.textContent.trim() : "slider") + ", value"); }
    });
    root.querySelectorAll(".widget-toggle-buttons").forEach(function (group) {
      var name = group.querySelector(".widget-label");
      set(group, "role", "group");
      if (name) { set(group, "aria-label", name.textContent.trim()); }
      group.querySelectorAll("button").forEach(function (button) {
        set(button, "aria-pressed", String(button.classList.contains("mod-active")));
      });
    });
    root.querySelectorAll(".widget-play").forEach(function (player) {
      player.querySelectorAll("button").forEach(function (button) {
        var icon = button.querySelector("i");
        Object.keys(PLAYER).forEach(function (name) {
          if (icon && icon.classList.contains(name)) {
            set(button, "aria-label", PLAYER[name]);
            set(button, "title", PLAYER[name]);
          }
        });
      });
    });
    root.querySelectorAll('.jupyter-widgets [title="null"], .widget-label[title="null"]').forEach(function (element) {
      element.removeAttribute("title");
    });
  }
  document.addEventListener("keydown", function (event) {
    var step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    var button = event.target.closest && event.target.closest(".widget-toggle-buttons button");
    if (!step || !button) { return; }
    var buttons = Array.from(button.closest(".widget-toggle-buttons").querySelectorAll("button"));
    var next = buttons[buttons.indexOf(button) + step];
    event.preventDefault();
    if (next) { next.focus(); next.click(); }
  });
  document.addEventListener("DOMContentLoaded", function () {
    if (!document.querySelector('script[type="application/vnd.jupyter.widget-view+json"]')) { return; }
    var queued = false;
    new MutationObserver(function () {
      if (queued) { return; }
      queued = true;
      requestAnimationFrame(function () { queued = false; label(document); });
    }).observe(document.body, { subtree: true, childList: true, characterData: true, attributes: true, attributeFilter: ["class"] });
    label(document);
  });
})();

// A formula, table or line of code that is wider than the screen scrolls in its own box; the keyboard must be able to
// reach that box. Boxes change their width: a solution unfolds, a font arrives, the window is turned.
(function () {
  var BOXES = ".bd-article mjx-container, .bd-article div.math, .bd-article pre, .cell_output .output";
  function mark(box) {
    var style = getComputedStyle(box);
    var scrolls = /auto|scroll/.test(style.overflowX) && box.scrollWidth > box.clientWidth;
    if (scrolls) { box.tabIndex = 0; } else if (box.tabIndex === 0) { box.removeAttribute("tabindex"); }
  }
  function reach() {
    var observer = window.ResizeObserver && new ResizeObserver(function (entries) {
      entries.forEach(function (entry) { mark(entry.target); });
    });
    document.querySelectorAll(BOXES).forEach(function (box) {
      mark(box);
      if (observer) { observer.observe(box); }
    });
  }
  window.addEventListener("load", function () {
    var ready = window.MathJax && window.MathJax.startup && window.MathJax.startup.promise;
    if (ready) { ready.then(reach); } else { reach(); }
  });
})();
