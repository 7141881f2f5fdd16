// Mends what keyboards and screen readers find in Gradio's components.
() => {
  const each = (selector, change) => document.querySelectorAll(selector).forEach(change);
  const mend = () => {
    each(".toast-header[role=button]", (header) => {  // a button inside a button
      header.removeAttribute("role");
      header.removeAttribute("tabindex");
    });
    each("div.empty[aria-label]:not([role])", (empty) => empty.setAttribute("role", "img"));
    each("#pose button:has(> .image-frame):not([aria-label])", (image) => {
      image.setAttribute("aria-label", "Pose: click both eyes, the nose and both corners of the mouth");
    });
  };
  new MutationObserver(mend).observe(document.body, { childList: true, subtree: true });
  mend();
}
