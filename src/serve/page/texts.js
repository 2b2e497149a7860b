// All texts of the page: name, English, Chinese. {x} stands for a value.
import { kept } from "./dom.js";

const table = {
    skip: ["Skip to the prompt", "跳到提示词"],
    unreachable: ["The server does not answer. Trying again…", "服务器没有回应，正在重试……"],
    tools: ["Page", "页面"],
    gallery: ["Gallery", "图库"],
    theme: ["Light or dark", "浅色或深色"],
    keys: ["Keyboard", "键盘"],
    settings: ["Settings", "设置"],
    stage: ["Picture", "图片"],
    panel: ["New picture", "新图片"],
    empty_title: ["What would you like to see?", "想画点什么？"],
    empty_text: [
        "Describe it in your own words, or begin with one of these. Drop a picture to read its recipe.",
        "用自己的话描述，或从下面的例子开始。拖入一张图片即可读取它的配方。"],
    compare_slider: ["Compare with the picture before", "与之前的图片比较"],
    progress: ["Progress", "进度"],
    actions: ["What to do with this picture", "对这张图片的操作"],
    queue: ["Queue", "队列"],
    prompt: ["Prompt", "提示词"],
    prompt_hint: ["A red apple on a wooden table, morning light", "木桌上的一个红苹果，清晨的光"],
    tokens: ["{n} of {most} tokens", "{n} / {most} 个词元"],
    tokens_cut: ["{n} tokens: the model reads the first {most}.", "{n} 个词元：模型只读前 {most} 个。"],
    negative_prompt: ["What should not be seen", "不希望出现的内容"],
    start_picture: ["Start from a picture", "从图片开始"],
    references: ["Reference pictures", "参考图"],
    add_picture: ["Add a picture", "添加图片"],
    add_reference: ["Add up to {n} pictures", "最多添加 {n} 张图片"],
    paint_mask: ["Paint a mask", "绘制蒙版"],
    edit_mask: ["Edit mask", "修改蒙版"],
    remove_mask: ["Remove mask", "移除蒙版"],
    remove_input: ["Remove picture {n}", "移除第 {n} 张图片"],
    move_input: ["Move picture {n} forward", "将第 {n} 张图片前移"],
    strength: ["Change", "变化程度"],
    composite: ["Keep what is not painted as it is", "未涂抹的部分保持原样"],
    fit: ["Fit", "适配"],
    fit_own: ["Whole picture", "整张图片"],
    fit_crop: ["Crop to the size", "裁剪到尺寸"],
    fit_pad: ["Paint new margins", "补画边缘"],
    size: ["Size", "尺寸"],
    width: ["W", "宽"],
    height: ["H", "高"],
    swap: ["Swap width and height", "交换宽和高"],
    seed: ["Seed", "种子"],
    random: ["Random", "随机"],
    random_each: ["Another seed for each picture", "每张图片换一个种子"],
    count: ["Pictures", "张数"],
    more: ["More settings", "更多设置"],
    model: ["Model", "模型"],
    steps: ["Steps", "步数"],
    guidance: ["Guidance", "引导强度"],
    format: ["Format", "格式"],
    quality: ["Quality", "质量"],
    rng: ["Noise as in", "噪声来源"],
    reset: ["Set back to the model's values", "恢复模型默认值"],
    make: ["Make", "生成"],
    stop: ["Stop", "停止"],
    enqueue: ["Add to the queue", "加入队列"],
    steps_of: ["{n} steps", "{n} 步"],
    plan: ["About {time} and {memory}", "约 {time}，{memory}"],
    plan_wait: ["About {time} after {wait} in the queue", "排队 {wait} 后约 {time}"],
    search: ["Search the prompts", "搜索提示词"],
    which: ["Which pictures", "显示哪些"],
    all: ["All", "全部"],
    starred: ["Starred", "已加星标"],
    bin: ["Bin", "回收站"],
    none: ["No pictures here.", "这里没有图片。"],
    older: ["Show older pictures", "显示更早的图片"],
    close: ["Close", "关闭"],
    cancel: ["Cancel", "取消"],
    done: ["Use the mask", "使用蒙版"],
    mask_title: ["Paint what is made anew", "涂抹要重画的部分"],
    mask_hint: [
        "Arrow keys move the brush, the space bar paints. [ ] size, X eraser, I invert, Del clear, Ctrl+Z undo.",
        "方向键移动画笔，空格键涂抹。[ ] 大小，X 橡皮，I 反选，Del 清除，Ctrl+Z 撤销。"],
    mask_canvas: ["The picture and its mask", "图片及其蒙版"],
    brush_size: ["Size", "大小"],
    brush: ["Brush", "画笔"],
    eraser: ["Eraser", "橡皮"],
    rectangle: ["Rectangle", "矩形"],
    lasso: ["Lasso", "套索"],
    invert: ["Invert", "反选"],
    clear: ["Clear", "清除"],
    undo: ["Undo", "撤销"],
    redo: ["Redo", "重做"],
    mask_empty: ["Paint something first: this mask selects nothing.", "请先涂抹：这个蒙版没有选中任何内容。"],
    recipe_title: ["How this picture was made", "这张图片的制作方法"],
    recipe_use: ["Use these settings", "使用这些设置"],
    recipe_again: ["Make it again and compare", "重新生成并比较"],
    recipe_input: ["Start from this picture", "以此图为起点"],
    recipe_no_model: ["This server has no model {model}; its own model will be used.", "此服务器没有模型 {model}，将使用现有模型。"],
    recipe_source: ["It was made by {source}; zimage makes another picture of it.", "它由 {source} 制作；zimage 会生成不同的图片。"],
    recipe_images: ["It was made from pictures, which its file does not hold.", "它由其他图片制作而成，文件中不含这些图片。"],
    recipe_none: ["This file does not say how the picture was made.", "此文件没有记录图片的制作方法。"],
    same_pixels: ["Made again: all pixels are equal.", "重新生成完成：所有像素都相同。"],
    other_pixels: ["Made again: {n} of {all} pixels differ.", "重新生成完成：{all} 个像素中有 {n} 个不同。"],
    other_maker: ["It was made with {name} {before}, now {now}.", "制作时的 {name} 为 {before}，现在为 {now}。"],
    other_size: ["Made again: the size differs.", "重新生成完成：尺寸不同。"],
    key_title: ["This server asks for a key", "此服务器需要密钥"],
    key_text: ["It is kept until you close this tab, and sent to this server only.", "密钥只保留到关闭此标签页，且只发送给此服务器。"],
    key: ["Key", "密钥"],
    key_use: ["Continue", "继续"],
    key_wrong: ["This key was not accepted.", "密钥不正确。"],
    drop_here: ["Drop a picture anywhere", "把图片拖到任意位置"],
    download: ["Download", "下载"],
    copy: ["Copy", "复制"],
    copied: ["Copied.", "已复制。"],
    share: ["Share", "分享"],
    link: ["Copy a link to its settings", "复制设置的链接"],
    reuse: ["Use its settings", "使用其设置"],
    other_seed: ["Another seed", "换个种子"],
    two: ["Two variations", "两个变体"],
    as_input: ["Start from it", "以此为起点"],
    mask_it: ["Repaint a part", "重画局部"],
    compare: ["Compare with before", "与之前比较"],
    star: ["Star", "加星标"],
    delete: ["Delete", "删除"],
    delete_chosen: ["Delete {n}", "删除 {n} 张"],
    restore_chosen: ["Restore {n}", "恢复 {n} 张"],
    choose: ["Choose", "选择"],
    deleted: ["In the bin for 30 days.", "将在回收站保留 30 天。"],
    restore: ["Undo", "撤销"],
    stage_text_encoder: ["Reading the prompt", "读取提示词"],
    stage_context: ["Reading the prompt", "读取提示词"],
    stage_vae_encode: ["Reading the picture", "读取图片"],
    stage_denoise: ["Step {step} of {steps}", "第 {step} 步，共 {steps} 步"],
    stage_vae_decode: ["Finishing", "收尾"],
    picture_of: ["picture {index} of {n}", "第 {index} 张，共 {n} 张"],
    left: ["{time} left", "剩余 {time}"],
    waiting: ["In the queue, {position} before it", "排队中，前面还有 {position} 个"],
    next: ["Next in the queue", "即将开始"],
    remove_job: ["Remove from the queue: {prompt}", "从队列移除：{prompt}"],
    cancelled: ["Stopped.", "已停止。"],
    finished: ["The picture is ready.", "图片已完成。"],
    percent: ["{n} percent", "百分之 {n}"],
    lost: ["The server no longer knows this job.", "服务器已不再保存此任务。"],
    need_prompt: ["Describe the picture first.", "请先描述图片。"],
    seed_error: ["A whole number from 0 to 18446744073709551615, or nothing.", "请输入 0 到 18446744073709551615 的整数，或留空。"],
    number_error: ["A whole number from {from} to {to}.", "请输入 {from} 到 {to} 的整数。"],
    too_many: ["This model takes at most {n} pictures.", "此模型最多使用 {n} 张图片。"],
    not_a_picture: ["{name} is no PNG, JPEG or WebP picture.", "{name} 不是 PNG、JPEG 或 WebP 图片。"],
    cant_start: ["This model can't start from a picture.", "此模型不能从图片开始。"],
    seconds: ["{n} s", "{n} 秒"],
    minutes: ["{n} min", "{n} 分钟"],
    result_of: ["Picture of: {prompt}", "图片：{prompt}"],
    key_make: ["Make", "生成"],
    key_stop: ["Stop, or close", "停止或关闭"],
    key_walk: ["Newer or older picture", "较新或较旧的图片"],
    key_last: ["In an empty prompt: the one before", "提示词为空时：上一条"],
    key_sizes: ["Sizes", "尺寸"],
    key_list: ["This list", "此列表"],
};

// Further words of examples, for a model that draws emoji and for others.
export const examples = {
    emoji: [
        ["a red apple", "一个红苹果"], ["a cat and a red apple", "一只猫和一个红苹果"],
        ["a rocket on a blue background", "蓝色背景上的火箭"], ["a panda, noto style", "熊猫"],
        ["a mushroom on a green background", "绿色背景上的蘑菇"], ["a whale, twemoji style", "鲸鱼"]],
    other: [
        ["A lighthouse on a cliff at dusk, long exposure", "黄昏悬崖上的灯塔，长曝光"],
        ["A fox asleep in tall grass, soft morning light", "高草丛中熟睡的狐狸，柔和的晨光"],
        ["A ceramic teapot, studio photograph on linen", "亚麻布上的陶瓷茶壶，棚拍照片"],
        ["A narrow street in Lisbon after rain, watercolour", "雨后里斯本的小巷，水彩画"],
        ["An astronaut reading in a library, oil painting", "在图书馆读书的宇航员，油画"],
        ["A paper boat on a still pond, top view", "平静池塘上的纸船，俯视"]],
};

export let language = kept.get("language", /^zh\b/i.test(navigator.language) ? "zh" : "en");
const column = () => (language === "zh" ? 1 : 0);

export function t(name, values = {}) {
    const text = table[name]?.[column()] ?? name;
    return text.replace(/\{(\w+)\}/g, (whole, key) => values[key] ?? whole);
}

export const inLanguage = (pair) => pair[column()];

// "4 s", "1.5 min"
export function duration(seconds) {
    if (!(seconds >= 60)) return t("seconds", { n: seconds < 1 ? seconds.toFixed(1) : Math.round(seconds) });
    return t("minutes", { n: seconds < 600 ? (seconds / 60).toFixed(1) : Math.round(seconds / 60) });
}

export const memory = (bytes) =>
    bytes >= 1e9 ? `${(bytes / 1e9).toFixed(1)} GB` : `${Math.max(1, Math.round(bytes / 1e6))} MB`;

// Puts the texts into all elements that name one.
export function translate(root = document) {
    document.documentElement.lang = language === "zh" ? "zh-Hans" : "en";
    const each = (name, put) =>
        root.querySelectorAll(`[data-${name}]`).forEach((element) => put(element, t(element.dataset[name])));
    each("t", (element, text) => { element.textContent = text; });
    each("label", (element, text) => element.setAttribute("aria-label", text));
    each("placeholder", (element, text) => { element.placeholder = text; });
    each("title", (element, text) => {
        element.title = text;
        element.setAttribute("aria-label", text);
    });
}

export function setLanguage(name) {
    language = name;
    kept.set("language", name);
    translate();
    document.dispatchEvent(new Event("language"));
}
