/** A picture before and after, one on the other: a slider that lies over them says how much of each is seen. */

/** @param {HTMLInputElement} slider in the box of the pictures, from 0 to 100 */
export function listenToSwipe(slider) {
  const show = () => {
    slider.parentElement?.style.setProperty("--swipe", `${slider.value}%`);
    slider.setAttribute("aria-valuetext", `${slider.value} % of the width as it is`);
  };
  slider.addEventListener("input", show);
  show();
}
