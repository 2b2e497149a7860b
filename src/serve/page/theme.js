// Runs before the first paint: the look that was chosen here before, so that nothing flashes.
(() => {
    let theme = "";
    try {
        theme = localStorage.getItem("zimage.theme") || "";
    } catch { /* no storage: the system decides */ }
    if (theme) document.documentElement.dataset.theme = theme;
})();
