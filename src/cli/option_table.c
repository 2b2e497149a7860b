/* The table of the commands and the table of their options: the only place where either is described. */
#include <limits.h>

#include "names.h"
#include "options.h"

#define STEPS_MAX       1000
#define COUNT_MAX       100000
#define THREADS_MAX     1024
#define LAYERS_MAX      1024
#define TOKENS_MAX      512
#define SIDE_MAX        (1 << 14) /* of a benchmark's image, in pixels */
#define SCALE_MAX       1000      /* of guidance and its limits */
#define PORT_MAX        65535
#define QUEUE_MAX       10000
#define IMAGES_MAX      100       /* of a request to the server */
#define RATE_MAX        1e6       /* requests a second */
#define SECONDS_MAX     864000    /* ten days */
#define PIXELS_MAX      268435456 /* 2^28 */
#define CONNECTIONS_MAX 1000000

#define DOWNLOADS_MAX 32 /* connections of a download */
#define RETRIES_MAX   100

#define PRIORITY_MAX 1000
#define ATTEMPTS_MAX 100
#define CLAIMS_MAX   64
#define ID_MAX       1e15
#define LEASE_MAX    86400

#define ON(command) (1u << CLI_##command)
#define EVERYWHERE  ((1u << CLI_COMMANDS) - 1)

/* The place of a field, which must have the type that the kind stores. */
#define IS_TYPE(member, type)   _Generic(((cli_options *)0)->member, type : 1)
#define FIELD(member, type)     .offset = offsetof(cli_options, member) + 0 * IS_TYPE(member, type)
#define FLAG(member)            .kind = CLI_FLAG, FIELD(member, int)
#define INT(member, from, to)   .kind = CLI_INT, .low = from, .high = to, FIELD(member, int64_t)
#define UINT64(member)          .kind = CLI_UINT64, FIELD(member, uint64_t)
#define FLOAT(member, from, to) .kind = CLI_FLOAT, .low = from, .high = to, FIELD(member, double)
#define SIZE(member)            .kind = CLI_SIZE, FIELD(member, uint64_t)
#define PIXELS(from, to)        .kind = CLI_PIXELS, .low = from, .high = to, FIELD(width, int64_t)
#define ENUM(member, names)     .kind = CLI_ENUM, .value_name = names, FIELD(member, int)
#define TEXT(member)            .kind = CLI_TEXT, FIELD(member, const char *)
#define FILE_NAME(member)       .kind = CLI_FILE, FIELD(member, const char *)
#define FOLDER(member)          .kind = CLI_FOLDER, FIELD(member, const char *)
#define FILES(member)           .kind = CLI_FILES, FIELD(member, cli_files)
#define COLOUR(member)          .kind = CLI_COLOUR, .offset = offsetof(cli_options, member)

#define NEEDS(name, reason)                                                                                            \
    {                                                                                                                  \
        .kind = CLI_NEEDS, .other = name, .why = reason                                                                \
    }
#define NEEDS_ABOVE(name, number, reason)                                                                              \
    {                                                                                                                  \
        CLI_NEEDS, name, CLI_ABOVE, number, NULL, reason                                                               \
    }
#define EXCLUDES(name, reason)                                                                                         \
    {                                                                                                                  \
        .kind = CLI_EXCLUDES, .other = name, .why = reason                                                             \
    }
#define EXCLUDES_ABOVE(name, number, reason)                                                                           \
    {                                                                                                                  \
        CLI_EXCLUDES, name, CLI_ABOVE, number, NULL, reason                                                            \
    }
#define EXCLUDES_VALUE(name, word, reason)                                                                             \
    {                                                                                                                  \
        CLI_EXCLUDES, name, CLI_IS, 0, word, reason                                                                    \
    }

const cli_command cli_commands[CLI_COMMANDS] = {
    [CLI_GENERATE] =
        {
            .name = "generate",
            .summary = "make images from prompts",
            .usage = {"PROMPT [OPTIONS]", "--batch FILE.jsonl --out-dir DIR [OPTIONS]"},
            .about = "Makes an image from a prompt, or the images of each line of a batch file, and writes image "
                     "files. With --json it prints one object: images (path, seed, seconds and, of a batch, line), "
                     "seconds of each stage, peak_rss_bytes, device (on a GPU) and error (after a failure).",
            .one_of = {"prompt", "prompt-embeds", "batch"},
            .missing = "PROMPT: missing, expected a text such as \"a red apple\", --prompt-embeds or --batch",
            .examples = {"zimage generate \"a red apple\"",
                         "zimage generate \"a cat in the rain\" -m DIR -o cat.png -W 1024 -H 768 --seed 7",
                         "zimage generate \"a castle\" -m DIR --guidance 4 --negative \"blurry\" --steps 28",
                         "zimage generate --batch prompts.jsonl --out-dir images",
                         "zimage generate \"a castle\" -m DIR -W 1024 -H 1024 --plan"},
        },
    [CLI_INSPECT] =
        {
            .name = "inspect",
            .summary = "print a model's configuration and tensors",
            .usage = {"MODEL [OPTIONS]"},
            .about =
                "Prints the configuration of a model and the names, types, shapes and sizes of its tensors. Only the "
                "headers of the files are read.",
            .one_of = {"model"},
            .missing = "MODEL: missing, expected one model folder or safetensors file",
            .examples = {"zimage inspect DIR"},
        },
    [CLI_BENCH] =
        {
            .name = "bench",
            .summary = "time a model's stages on this machine",
            .usage = {"--synthetic z-image-turbo [OPTIONS]", "-m DIR [OPTIONS]"},
            .about =
                "Times the text encoder, one step of the transformer and the VAE decoder. Prints TFLOP/s and "
                "percentages of two speeds measured in the same run: the CPU's peak of multiply-adds, and oneDNN's "
                "matrix product if libdnnl is installed. On a GPU the percentages are those of its largest matrix "
                "product on random numbers. With --json it prints one object: stages, peak_rss_bytes, tiers and, on a "
                "GPU, peak_device_bytes.",
            .one_of = {"synthetic", "model"},
            .missing = "--synthetic MODEL or -m DIR: expected one of them",
            .operand_hint = "a model is named with -m DIR",
            .examples = {"zimage bench --synthetic z-image-turbo -W 512 -H 512", "zimage bench -m DIR --json"},
        },
    [CLI_DEVICES] =
        {
            .name = "devices",
            .summary = "list the devices of this machine",
            .usage = {"[OPTIONS]"},
            .about =
                "Lists the CPU's features that matter here and the kernels of this build, each with the speed of one "
                "thread on data in its first cache, measured now. Then lists the GPUs (CUDA, MLX), or why none can be "
                "used.",
            .examples = {"zimage devices"},
        },
    [CLI_SELFTEST] =
        {
            .name = "selftest",
            .summary = "check that this machine computes correctly",
            .usage = {"[OPTIONS]"},
            .about =
                "Checks every kernel that this machine can run against plain C, then a tiny image made by each. It "
                "takes a few seconds and needs no model. The exit status is 0 if everything is correct, and 1 "
                "otherwise.",
            .examples = {"zimage selftest"},
        },
    [CLI_TOKENIZE] =
        {
            .name = "tokenize",
            .summary = "print the token ids of a text",
            .usage = {"TEXT [OPTIONS]"},
            .about =
                "Prints the token ids of TEXT on one line, all of them. TEXT \"-\" is read from standard input, byte "
                "for byte: a newline at its end counts. Write \"--\" before a TEXT that begins with a dash. With "
                "--json it prints one object: template, count, ids.",
            .one_of = {"text"},
            .missing = "TEXT: missing, expected one text, in quotes if it has several words",
            .examples = {"zimage tokenize -m DIR --template z-image \"a cat\""},
        },
    [CLI_COMPLETION] =
        {
            .name = "completion",
            .summary = "print a script that completes command lines",
            .usage = {"SHELL"},
            .about = "Prints a script with which the shell completes commands, options and values of zimage.",
            .one_of = {"shell"},
            .missing = "SHELL: missing, expected bash, zsh or fish",
            .examples = {"source <(zimage completion bash)", "zimage completion zsh >~/.zfunc/_zimage",
                         "zimage completion fish >~/.config/fish/completions/zimage.fish"},
        },
    [CLI_SERVE] =
        {
            .name = "serve",
            .summary = "serve a web page, and images to other programs",
            .usage = {"[OPTIONS]"},
            .about =
                "Serves a web page, the images API of OpenAI, a part of AUTOMATIC1111's, and an API of jobs. GET "
                "/openapi.json describes all of it. Without -m it serves the bundled model. It prints the address that "
                "it listens on, and one line for each request. After SIGTERM or Ctrl-C it takes no new jobs, and ends "
                "when those that are there are done, at the latest after --drain seconds.",
            .examples = {"zimage serve", "zimage serve -m turbo=DIR -m klein=black-forest-labs/FLUX.2-klein-4B",
                         "zimage serve --host 0.0.0.0 --api-key-file keys --allow-host my.example",
                         "ZIMAGE_PORT=8000 zimage serve"},
            .environment = 1,
        },
    [CLI_EXPLAIN] =
        {
            .name = "explain",
            .summary = "print how an image was made",
            .usage = {"FILE [OPTIONS]"},
            .about =
                "Prints the recipe in an image's file: prompt, seed, model and all else that decides the image. It "
                "reads zimage's own recipes, and what AUTOMATIC1111's program and ComfyUI write. With --json it prints "
                "one object: path, format, source (who wrote the recipe) and recipe.",
            .one_of = {"file"},
            .missing = "FILE: missing, expected one PNG, JPEG or WebP file",
            .examples = {"zimage explain apple.png"},
        },
    [CLI_RERUN] =
        {
            .name = "rerun",
            .summary = "make an image again from its recipe, and compare",
            .usage = {"FILE [OPTIONS]"},
            .about =
                "Makes the image of a file again, as the recipe in the file says, and compares the pixels. The recipe "
                "only names what it used: the model and the input images are those of the command line. The exit "
                "status is 0 if all pixels are equal, and 3 if not: then it says how far they differ, and what was "
                "different when the file was made. With --json it prints one object: path, equal, pixels, different, "
                "largest, mean, reasons and seconds.",
            .one_of = {"file"},
            .missing = "FILE: missing, expected one PNG, JPEG or WebP file that zimage made",
            .examples = {"zimage rerun apple.png", "zimage rerun castle.webp -m DIR -o again.png"},
        },
    [CLI_PULL] =
        {
            .name = "pull",
            .summary = "download a model",
            .usage = {"ORGANISATION/NAME [OPTIONS]", "--suggest [OPTIONS]"},
            .about =
                "Downloads a model into the cache that it shares with Python's tools (HF_HUB_CACHE, HF_HOME), and "
                "prints its folder. Only weights as safetensors, configurations and tokenizers are fetched, never "
                "programs. The SHA-256 of every file is verified. A download that was interrupted goes on where it "
                "was. HF_TOKEN holds the token, HF_ENDPOINT names another hub. Exit codes: 3 there is no such model, 4 "
                "it needs a licence or a token, 5 network, 6 disk, 7 a file is not the one that was announced.",
            .one_of = {"repository", "suggest"},
            .missing = "ORGANISATION/NAME: missing, expected a model such as Tongyi-MAI/Z-Image-Turbo, or --suggest",
            .examples = {"zimage pull Tongyi-MAI/Z-Image-Turbo", "zimage pull Tongyi-MAI/Z-Image-Turbo --plan",
                         "zimage pull black-forest-labs/FLUX.2-klein-4B --limit 5M",
                         "zimage pull Tongyi-MAI/Z-Image-Turbo --source modelscope"},
        },
    [CLI_MODELS] =
        {
            .name = "models",
            .summary = "list, verify or remove downloaded models",
            .usage = {"[OPTIONS]"},
            .about =
                "Lists the models in the caches, with their sizes: those that zimage pull downloaded, and those of "
                "Python's tools. -m takes their names.",
            .examples = {"zimage models", "zimage models --verify Tongyi-MAI/Z-Image-Turbo",
                         "zimage models --remove Tongyi-MAI/Z-Image-Turbo"},
        },
    [CLI_QUEUE] =
        {
            .name = "queue",
            .summary = "add jobs to a ledger, look at them, get their results",
            .usage = {"add FILE.jsonl --queue URL [OPTIONS]", "init|status|retry|cancel|export --queue URL [OPTIONS]"},
            .about =
                "A ledger is a table of jobs in a PostgreSQL database, from which any number of workers (zimage work) "
                "take jobs. init makes the tables, or brings older ones up to date. add adds the lines of a file, "
                "which are those of a batch; all are checked before the first is stored, and a line that is there "
                "already changes nothing. status counts, and predicts the time that is left. retry queues failed and "
                "cancelled jobs again. cancel ends queued and running ones. export prints each job as a line of JSON.",
            .one_of = {"action"},
            .missing = "ACTION: missing, expected init, add, status, retry, cancel or export",
            .examples = {"zimage queue init --queue postgresql://me@db/images",
                         "zimage queue add prompts.jsonl --queue postgresql://me@db/images --batch cats",
                         "ZIMAGE_QUEUE=postgresql://me@db/images zimage queue status",
                         "zimage queue export --queue postgresql://me@db/images --batch cats"},
            .environment = 1,
        },
    [CLI_WORK] =
        {
            .name = "work",
            .summary = "make the images of a ledger's jobs",
            .usage = {"--queue URL --out-dir DIR [OPTIONS]", "--queue URL --pack DIR [OPTIONS]"},
            .about =
                "Takes jobs of its model from a ledger (zimage queue), and makes their images, until it is told to "
                "end. It may be killed at any time: another worker takes its jobs. SIGTERM and Ctrl-C let the image "
                "under way end; a second signal ends it at once. After a fault of the machine the job goes back, and "
                "the worker ends with a sentence. With --json it prints one object in the end: made, failed, lost, "
                "seconds, busy_seconds.",
            .one_of = {"out-dir", "pack"},
            .missing = "--out-dir DIR or --pack DIR: expected one of them",
            .operand_hint = "a model is named with -m DIR",
            .examples = {"zimage work --queue postgresql://me@db/images --out-dir /shared/results",
                         "ZIMAGE_QUEUE=postgresql://me@db/images zimage work --pack /shared/tars -m DIR"},
            .environment = 1,
        },
    [CLI_WORDS] =
        {
            .name = "words",
            .summary = "list what a small model can draw",
            .usage = {"[TEXT] [OPTIONS]"},
            .about = "Lists the things that a model knows, one on a line, from the file words.txt in its folder; the "
                     "bundled model has one. With TEXT it lists only things with a name that has these words or, if "
                     "there are none, with a name that has a word with this beginning, and prints their names. A name "
                     "that the list has but the model does not know is marked. The exit status is 1 if there are none. "
                     "With --json it prints one object: things (thing, names) and nearest. generate, serve and work "
                     "warn of words of a prompt that the model does not know; words that say nothing about what is "
                     "drawn (\"of\", \"photo\", \"beautiful\") are no reason to warn.",
            .examples = {"zimage words", "zimage words car", "zimage words -m DIR --json"},
        },
    [CLI_HELP] =
        {
            .name = "help",
            .summary = "describe the program or one command",
            .usage = {"[COMMAND]", "--man"},
            .about = "Describes the program, or all options of a command, or prints the whole manual page.",
            .examples = {"zimage help generate", "zimage help --man | man -l -"},
        },
};

const char *const cli_group_names[CLI_GROUPS] = {
    [CLI_GROUP_IMAGE] = "Image",       [CLI_GROUP_SERVER] = "Server",
    [CLI_GROUP_FILES] = "Files",       [CLI_GROUP_MACHINE] = "Device, memory and speed",
    [CLI_GROUP_PRINTING] = "Printing",
};

static const char no_image[] = "a plan makes no image";
static const char workers_do[] = "the ledger's workers make the images";
static const char no_guidance[] = "it changes nothing without guidance";

#define SIZE_HELP "Width and height of the image in pixels, for example 1024x768: --width and --height in one."

const cli_option cli_table[] = {
    {
        .name = "file",
        .argument = "FILE",
        .help = "The image file whose recipe is read: PNG, JPEG or WebP.",
        .commands = ON(EXPLAIN) | ON(RERUN),
        .group = CLI_GROUP_FILES,
        FILE_NAME(file),
        .operand = 1,
    },
    /* ---- image ---- */
    {
        .name = "prompt",
        .letter = 'p',
        .argument = "PROMPT",
        .help = "What the image shows.",
        .commands = ON(GENERATE),
        .group = CLI_GROUP_IMAGE,
        TEXT(prompt),
        .operand = 1,
        .key = "prompt",
        .key_needed = 1,
    },
    {
        .name = "negative",
        .field = "negative_prompt",
        .elsewhere = "negative-prompt neg-prompt uncond",
        .argument = "TEXT",
        .help = "Negative prompt: what guidance leads away from.",
        .commands = ON(GENERATE),
        .group = CLI_GROUP_IMAGE,
        TEXT(negative),
        .key = "negative",
        .rules = {NEEDS_ABOVE("guidance", 0, no_guidance)},
    },
    {
        .name = "image",
        .field = "images",
        .elsewhere = "images init-image input-image init-img img input image-file ref-image reference-image",
        .letter = 'i',
        .argument = "FILE",
        .help = "Input image: PNG, JPEG or WebP. Z-Image changes this image, as far as --strength says. FLUX.2-klein "
                "makes a new image from references, up to 8, each with its own -i. With --mask a part of the first "
                "image is repainted.",
        .commands = ON(GENERATE),
        .group = CLI_GROUP_IMAGE,
        FILES(images),
        .key = "image",
    },
    {
        .name = "image",
        .field = "images",
        .letter = 'i',
        .argument = "FILE",
        .help = "An input image that the recipe names: PNG, JPEG or WebP. Several are given in the recipe's order, "
                "each with its own -i.",
        .commands = ON(RERUN),
        .group = CLI_GROUP_IMAGE,
        FILES(images),
    },
    {
        .name = "mask",
        .elsewhere = "mask-image inpaint-mask inpaint",
        .argument = "FILE",
        .help = "An image of the same size that says which part of the first input image is repainted: what is "
                "transparent in it, if anything is, else what is white.",
        .commands = ON(GENERATE) | ON(RERUN),
        .group = CLI_GROUP_IMAGE,
        FILE_NAME(mask),
        .key = "mask",
        .rules = {NEEDS("image", "it is a part of an image")},
    },
    {
        .name = "composite",
        .elsewhere = "paste-back overlay keep-original preserve-unmasked",
        .help = "Keep the input image's own pixels outside of the mask. Pixels nearer to the mask than a patch of "
                "latents (16 pixels, with the bundled model 32) are blended. Without this option the whole image is "
                "encoded and decoded, as in diffusers.",
        .commands = ON(GENERATE),
        .group = CLI_GROUP_IMAGE,
        FLAG(composite),
        .key = "composite",
        .rules = {NEEDS("mask", "it keeps what is outside of the mask")},
    },
    {
        .name = "strength",
        .elsewhere = "denoise denoising-strength image-strength img2img-strength",
        .argument = "S",
        .help = "How much the input image changes (default: the model's own). At 1 nothing of it is left. The first "
                "part of the steps, 1 - S of them, is left out.",
        .commands = ON(GENERATE),
        .group = CLI_GROUP_IMAGE,
        FLOAT(strength, 0, 1),
        .above_low = 1,
        .key = "strength",
        .rules = {NEEDS("image", "it says how much an image changes")},
    },
    {
        .name = "background",
        .elsewhere = "bg background-color",
        .argument = "COLOUR",
        .help = "What is seen through transparent parts of input images: white, black, grey or RGB such as #ffcc00.",
        .commands = ON(GENERATE),
        .group = CLI_GROUP_IMAGE,
        COLOUR(background),
        .fallback = "white",
        .key = "background",
        .rules = {NEEDS("image", "it is seen through an image")},
    },
    {
        .name = "size",
        .elsewhere = "resolution image-size dimensions",
        .argument = "WxH",
        .help = SIZE_HELP,
        .commands = ON(GENERATE),
        .group = CLI_GROUP_IMAGE,
        PIXELS(1, INT_MAX),
        .key = "size",
    },
    {
        .name = "size",
        .argument = "WxH",
        .help = SIZE_HELP,
        .commands = ON(BENCH),
        .group = CLI_GROUP_IMAGE,
        PIXELS(1, SIDE_MAX),
    },
    {
        .name = "width",
        .letter = 'W',
        .argument = "N",
        .help = "Width of the image in pixels (default: the first input image's, or the model's own).",
        .commands = ON(GENERATE),
        .group = CLI_GROUP_IMAGE,
        INT(width, 1, INT_MAX),
        .key = "width",
    },
    {
        .name = "height",
        .letter = 'H',
        .argument = "N",
        .help = "Height of the image in pixels (default: the first input image's, or the model's own).",
        .commands = ON(GENERATE),
        .group = CLI_GROUP_IMAGE,
        INT(height, 1, INT_MAX),
        .key = "height",
    },
    {
        .name = "width",
        .letter = 'W',
        .argument = "N",
        .help = "Width of the image in pixels (default: the model's own; 512 with --synthetic).",
        .commands = ON(BENCH),
        .group = CLI_GROUP_IMAGE,
        INT(width, 1, SIDE_MAX),
    },
    {
        .name = "height",
        .letter = 'H',
        .argument = "N",
        .help = "Height of the image in pixels (default: the model's own; 512 with --synthetic).",
        .commands = ON(BENCH),
        .group = CLI_GROUP_IMAGE,
        INT(height, 1, SIDE_MAX),
    },
    {
        .name = "steps",
        .elsewhere = "num-inference-steps inference-steps sampling-steps num-steps sample-steps",
        .argument = "N",
        .help = "Denoising steps (default: the model's own). Each is one forward pass of the transformer, or two with "
                "guidance. With an input image only the last of them are run: see --strength.",
        .commands = ON(GENERATE),
        .group = CLI_GROUP_IMAGE,
        INT(steps, 1, STEPS_MAX),
        .key = "steps",
    },
    {
        .name = "seed",
        .elsewhere = "manual-seed random-seed noise-seed",
        .letter = 's',
        .argument = "N",
        .help = "Seed of the initial noise, 0 to 2^64 - 1 (default: a random one, which is printed).",
        .commands = ON(GENERATE),
        .group = CLI_GROUP_IMAGE,
        UINT64(seed),
        .key = "seed",
    },
    {
        .name = "rng",
        .argument = "KIND",
        .help = "The library whose noise a seed means.",
        .commands = ON(GENERATE),
        .group = CLI_GROUP_IMAGE,
        ENUM(rng, cli_rng_name),
        .fallback = "torch-cpu",
        .key = "rng",
    },
    {
        .name = "count",
        .elsewhere = "num-images-per-prompt num-images batch-count batch-size",
        .letter = 'n',
        .argument = "N",
        .help = "Make N images. Their seeds are SEED, SEED + 1 and so on. With --output their names get -1, -2 and so "
                "on; no file is replaced then.",
        .commands = ON(GENERATE),
        .group = CLI_GROUP_IMAGE,
        INT(count, 1, COUNT_MAX),
        .fallback = "1",
        .key = "count",
    },
    {
        .name = "guidance",
        .field = "guidance_scale",
        .elsewhere = "guidance-scale cfg-scale cfg true-cfg-scale",
        .argument = "G",
        .help = "Scale of classifier-free guidance, in diffusers' convention for the model; Z-Image: prediction = "
                "positive + G (positive - negative). 0 is none. Default: none for distilled models, else that of "
                "diffusers, 5 for Z-Image.",
        .commands = ON(GENERATE),
        .group = CLI_GROUP_IMAGE,
        FLOAT(guidance, 0, SCALE_MAX),
        .key = "guidance",
    },
    {
        .name = "cfg-truncation",
        .elsewhere = "cfg-trunc-ratio",
        .argument = "T",
        .help = "No guidance once 1 - sigma exceeds T; 1 is guidance at all steps.",
        .commands = ON(GENERATE),
        .group = CLI_GROUP_IMAGE,
        FLOAT(cfg_truncation, 0, SCALE_MAX),
        .fallback = "1",
        .key = "cfg_truncation",
        .rules = {NEEDS_ABOVE("guidance", 0, no_guidance)},
    },
    {
        .name = "cfg-normalization",
        .elsewhere = "cfg-norm cfg-renorm",
        .argument = "N",
        .help = "Limit the norm of the guided prediction to N times the norm of the positive one; 0 is no limit.",
        .commands = ON(GENERATE),
        .group = CLI_GROUP_IMAGE,
        FLOAT(cfg_normalization, 0, SCALE_MAX),
        .fallback = "0",
        .key = "cfg_normalization",
        .rules = {NEEDS_ABOVE("guidance", 0, no_guidance)},
    },
    {
        .name = "tokens",
        .argument = "N",
        .help = "Length of the prompt in tokens.",
        .commands = ON(BENCH),
        .group = CLI_GROUP_IMAGE,
        INT(tokens, 1, TOKENS_MAX),
        .fallback = "64",
    },
    {
        .name = "steps",
        .field = "repeats",
        .argument = "N",
        .help = "Runs of each stage, of which the median counts. When the first is short, one more is made and not "
                "counted.",
        .commands = ON(BENCH),
        .group = CLI_GROUP_IMAGE,
        INT(steps, 1, STEPS_MAX),
        .fallback = "3",
    },
    {
        .name = "layers",
        .argument = "N",
        .help = "Time only the first N layers of the text encoder and of the transformer (default: all).",
        .commands = ON(BENCH),
        .group = CLI_GROUP_IMAGE,
        INT(layers, 1, LAYERS_MAX),
    },
    /* ---- server ---- */
    {
        .name = "host",
        .elsewhere = "listen bind address ip",
        .argument = "ADDRESS",
        .help = "The address to listen on, such as 127.0.0.1, ::1 or 0.0.0.0. One that other machines reach needs "
                "--api-key-file or --insecure.",
        .commands = ON(SERVE),
        .group = CLI_GROUP_SERVER,
        TEXT(host),
        .words = "127.0.0.1 ::1 0.0.0.0",
        .fallback = "127.0.0.1",
    },
    {
        .name = "port",
        .argument = "N",
        .help = "The port to listen on; 0: the system chooses one.",
        .commands = ON(SERVE),
        .group = CLI_GROUP_SERVER,
        INT(port, 0, PORT_MAX),
        .fallback = "8421",
    },
    {
        .name = "unix",
        .field = "unix",
        .elsewhere = "uds socket unix-socket",
        .argument = "PATH",
        .help = "Listen on a Unix socket at this path, and on no port. This user and its group may connect.",
        .commands = ON(SERVE),
        .group = CLI_GROUP_SERVER,
        FILE_NAME(unix_path),
        .written = 1,
        .rules = {EXCLUDES("host", "it has no address"), EXCLUDES("port", "it has no port")},
    },
    {
        .name = "tls-cert",
        .elsewhere = "ssl-cert-file ssl-certfile cert certfile",
        .argument = "FILE",
        .help = "Speak HTTPS with the certificate in this PEM file. Intermediate certificates follow it "
                "there. After SIGHUP the server reads this file and the key's again.",
        .commands = ON(SERVE),
        .group = CLI_GROUP_SERVER,
        FILE_NAME(tls_cert),
        .rules = {NEEDS("tls-key", "a certificate has a key")},
    },
    {
        .name = "tls-key",
        .elsewhere = "ssl-key-file ssl-keyfile keyfile",
        .argument = "FILE",
        .help = "The PEM file of the certificate's private key, without a password.",
        .commands = ON(SERVE),
        .group = CLI_GROUP_SERVER,
        FILE_NAME(tls_key),
        .rules = {NEEDS("tls-cert", "it is the key of a certificate")},
    },
    {
        .name = "public-url",
        .elsewhere = "base-url root-url external-url",
        .argument = "URL",
        .help = "The server's URL as clients see it behind a proxy, such as https://images.example. The server answers "
                "to this name, and the URLs of images begin with it.",
        .commands = ON(SERVE),
        .group = CLI_GROUP_SERVER,
        TEXT(public_url),
    },
    {
        .name = "api-key-file",
        .field = "key_file",
        .elsewhere = "key-file keys",
        .argument = "FILE",
        .help = "Ask for an API key: one of those in the file, on each line KEY, NAME:KEY or NAME:KEY:RATE, with the "
                "key's own requests a second; # begins a comment.",
        .commands = ON(SERVE),
        .group = CLI_GROUP_SERVER,
        FILE_NAME(key_file),
    },
    {
        .name = "api-key",
        .elsewhere = "key auth token",
        .argument = "KEY",
        .help = "Ask for this API key. Other users of the machine can see it on a command line: better set the "
                "variable ZIMAGE_API_KEY, or name a file.",
        .commands = ON(SERVE),
        .group = CLI_GROUP_SERVER,
        TEXT(key),
    },
    {
        .name = "insecure",
        .help = "Allow an address that other machines reach, and ask for no API key.",
        .commands = ON(SERVE),
        .group = CLI_GROUP_SERVER,
        FLAG(insecure),
        .rules = {EXCLUDES("api-key-file", "a key is asked for"), EXCLUDES("api-key", "a key is asked for")},
    },
    {
        .name = "allow-host",
        .elsewhere = "server-name hostname",
        .argument = "NAMES",
        .help = "Further names of the server, separated by commas. A request whose Host header has another name is "
                "refused.",
        .commands = ON(SERVE),
        .group = CLI_GROUP_SERVER,
        TEXT(allowed_hosts),
    },
    {
        .name = "cors-origins",
        .elsewhere = "cors cors-origin cors-allow-origins",
        .argument = "ORIGINS",
        .help = "Origins, separated by commas, whose pages may use the server (CORS), such as https://images.example.",
        .commands = ON(SERVE),
        .group = CLI_GROUP_SERVER,
        TEXT(allowed_origins),
    },
    {
        .name = "rate",
        .elsewhere = "rate-limit",
        .argument = "N",
        .help = "Requests a second of one key and of one address, on average; more are refused. 0: no limit. Finished "
                "images, the page and health do not count.",
        .commands = ON(SERVE),
        .group = CLI_GROUP_SERVER,
        FLOAT(rate, 0, RATE_MAX),
        .fallback = "10",
    },
    {
        .name = "burst",
        .argument = "N",
        .help = "How many requests of one key, and of one address, may come at once.",
        .commands = ON(SERVE),
        .group = CLI_GROUP_SERVER,
        FLOAT(burst, 1, RATE_MAX),
        .fallback = "50",
    },
    {
        .name = "failed-keys",
        .argument = "N",
        .help = "Wrong API keys a minute of one address; after more of them its keys are refused for a while. "
                "0: no limit.",
        .commands = ON(SERVE),
        .group = CLI_GROUP_SERVER,
        FLOAT(failed_keys, 0, RATE_MAX),
        .fallback = "5",
    },
    {
        .name = "max-queue",
        .argument = "N",
        .help = "Most jobs that wait; further ones are refused.",
        .commands = ON(SERVE),
        .group = CLI_GROUP_SERVER,
        INT(max_queue, 1, QUEUE_MAX),
        .fallback = "64",
    },
    {
        .name = "max-wait",
        .argument = "SECONDS",
        .help = "Longest time that a job may have to wait, as predicted; others are refused.",
        .commands = ON(SERVE),
        .group = CLI_GROUP_SERVER,
        FLOAT(max_wait, 0, SECONDS_MAX),
        .fallback = "600",
    },
    {
        .name = "max-n",
        .argument = "N",
        .help = "Most images of one request.",
        .commands = ON(SERVE),
        .group = CLI_GROUP_SERVER,
        INT(max_images, 1, IMAGES_MAX),
        .fallback = "10",
    },
    {
        .name = "max-steps",
        .argument = "N",
        .help = "Most steps of an image (default: 4 times the model's own).",
        .commands = ON(SERVE),
        .group = CLI_GROUP_SERVER,
        INT(max_steps, 1, STEPS_MAX),
    },
    {
        .name = "sdapi-max-steps",
        .argument = "N",
        .help = "Most steps of a distilled model for clients of AUTOMATIC1111's API, which ask for many by habit "
                "(default: the model's own).",
        .commands = ON(SERVE),
        .group = CLI_GROUP_SERVER,
        INT(sdapi_max_steps, 1, STEPS_MAX),
    },
    {
        .name = "max-pixels",
        .argument = "N",
        .help = "Most pixels of an image, width times height (default: the model's own limit).",
        .commands = ON(SERVE),
        .group = CLI_GROUP_SERVER,
        INT(max_pixels, 1, PIXELS_MAX),
    },
    {
        .name = "max-body",
        .argument = "SIZE",
        .help = "Most bytes of a request's body. Some endpoints take fewer.",
        .commands = ON(SERVE),
        .group = CLI_GROUP_SERVER,
        SIZE(max_body),
        .fallback = "420M",
    },
    {
        .name = "max-image",
        .argument = "SIZE",
        .help = "Most bytes of an input image's file.",
        .commands = ON(SERVE),
        .group = CLI_GROUP_SERVER,
        SIZE(max_image),
        .fallback = "50M",
    },
    {
        .name = "max-uploads",
        .argument = "SIZE",
        .help = "Most bytes of all bodies that are read at the same time, and of all decoded input images; further "
                "requests are refused for a while.",
        .commands = ON(SERVE),
        .group = CLI_GROUP_SERVER,
        SIZE(max_uploads),
        .fallback = "1G",
    },
    {
        .name = "max-connections",
        .argument = "N",
        .help = "Most connections at the same time; fewer, if the limit of open files is lower.",
        .commands = ON(SERVE),
        .group = CLI_GROUP_SERVER,
        INT(max_connections, 1, CONNECTIONS_MAX),
        .fallback = "4096",
    },
    {
        .name = "per-address",
        .elsewhere = "per-ip max-connections-per-ip",
        .argument = "N",
        .help = "Most connections of one address.",
        .commands = ON(SERVE),
        .group = CLI_GROUP_SERVER,
        INT(per_address, 1, CONNECTIONS_MAX),
        .fallback = "256",
    },
    {
        .name = "header-seconds",
        .elsewhere = "timeout-header header-timeout",
        .argument = "SECONDS",
        .help = "How long the headers of a request may take.",
        .commands = ON(SERVE),
        .group = CLI_GROUP_SERVER,
        FLOAT(header_seconds, 1, SECONDS_MAX),
        .fallback = "10",
    },
    {
        .name = "body-seconds",
        .elsewhere = "timeout-body body-timeout",
        .argument = "SECONDS",
        .help = "How long the body of a request may take. A body of which nothing comes for a minute is refused in any "
                "case.",
        .commands = ON(SERVE),
        .group = CLI_GROUP_SERVER,
        FLOAT(body_seconds, 1, SECONDS_MAX),
        .fallback = "600",
    },
    {
        .name = "connection-seconds",
        .elsewhere = "timeout-idle idle-timeout keep-alive-timeout",
        .argument = "SECONDS",
        .help = "How long a connection may be idle.",
        .commands = ON(SERVE),
        .group = CLI_GROUP_SERVER,
        FLOAT(connection_seconds, 1, SECONDS_MAX),
        .fallback = "75",
    },
    {
        .name = "job-seconds",
        .elsewhere = "timeout timeout-job job-timeout",
        .argument = "SECONDS",
        .help = "Cancel a job that runs for longer, and refuse a request whose job is predicted to; 0: no limit.",
        .commands = ON(SERVE),
        .group = CLI_GROUP_SERVER,
        FLOAT(job_seconds, 0, SECONDS_MAX),
        .fallback = "3600",
    },
    {
        .name = "drain",
        .argument = "SECONDS",
        .help = "How long jobs may go on after SIGTERM; new ones are refused.",
        .commands = ON(SERVE),
        .group = CLI_GROUP_SERVER,
        FLOAT(drain, 0, SECONDS_MAX),
        .fallback = "30",
    },
    {
        .name = "keep-models",
        .argument = "N",
        .help = "How many models stay open at the same time; the one that was used longest ago is closed.",
        .commands = ON(SERVE),
        .group = CLI_GROUP_SERVER,
        INT(keep_models, 1, CLI_FILES_MAX),
        .fallback = "1",
    },
    {
        .name = "idle-seconds",
        .elsewhere = "idle-unload keep-alive",
        .argument = "SECONDS",
        .help = "Close models after so long without a job; 0: never.",
        .commands = ON(SERVE),
        .group = CLI_GROUP_SERVER,
        FLOAT(idle_seconds, 0, SECONDS_MAX),
        .fallback = "0",
    },
    {
        .name = "no-overlap",
        .help = "Make one image after the other on each GPU. Without this option the text encoder and the VAE work for "
                "one image while the steps of another are computed, where memory allows it. The images are the same.",
        .commands = ON(SERVE),
        .group = CLI_GROUP_SERVER,
        FLAG(no_overlap),
    },
    {
        .name = "queue",
        .elsewhere = "database db dsn url ledger",
        .argument = "URL",
        .help = "Make no images, but let zimage work make them: jobs are kept in this ledger (zimage queue init), "
                "postgresql://USER@HOST/DATABASE, and any number of such servers may share it. A password belongs in "
                "ZIMAGE_QUEUE, ~/.pgpass or PGPASSWORD.",
        .commands = ON(SERVE),
        .group = CLI_GROUP_SERVER,
        TEXT(queue),
        .rules = {NEEDS("results", "finished images are read from there"),
                  EXCLUDES("gallery", "a server of a ledger keeps nothing itself"), EXCLUDES("device", workers_do),
                  EXCLUDES("compute", workers_do), EXCLUDES("mem", workers_do), EXCLUDES("vram", workers_do),
                  EXCLUDES("threads", workers_do), EXCLUDES("no-overlap", workers_do),
                  EXCLUDES("keep-models", workers_do), EXCLUDES("idle-seconds", workers_do)},
    },
    {
        .name = "results",
        .argument = "PLACE",
        .help = "The place of the ledger's workers (zimage work --out-dir), from which this server reads images, and "
                "where it puts input images: a folder, or s3://BUCKET/PREFIX.",
        .commands = ON(SERVE),
        .group = CLI_GROUP_SERVER,
        FOLDER(results),
        .written = 1,
        .rules = {NEEDS("queue", "else the server makes the images itself")},
    },
    {
        .name = "keep-results",
        .argument = "SECONDS",
        .help =
            "How long jobs of servers stay in the ledger after their end, and their images in the place of results.",
        .commands = ON(SERVE),
        .group = CLI_GROUP_SERVER,
        FLOAT(keep_results, 1, SECONDS_MAX),
        .fallback = "86400",
        .rules = {NEEDS("queue", "else images are only in memory")},
    },
    {
        .name = "store-bytes",
        .argument = "SIZE",
        .help = "Memory for finished images that clients may still fetch: 256M, 1G, ...",
        .commands = ON(SERVE),
        .group = CLI_GROUP_SERVER,
        SIZE(store_bytes),
        .fallback = "256M",
    },
    {
        .name = "store-seconds",
        .argument = "SECONDS",
        .help = "How long clients may fetch a finished image.",
        .commands = ON(SERVE),
        .group = CLI_GROUP_SERVER,
        FLOAT(store_seconds, 0, SECONDS_MAX),
        .fallback = "3600",
    },
    {
        .name = "gallery",
        .elsewhere = "output-dir outdir",
        .argument = "DIR",
        .help =
            "Write finished images into this folder, which the page then shows. Those of an API key with a name lie "
            "in a folder of that name inside.",
        .commands = ON(SERVE),
        .group = CLI_GROUP_FILES,
        FOLDER(gallery),
        .written = 1,
    },
    {
        .name = "metrics-public",
        .elsewhere = "metrics",
        .help = "/metrics needs no API key.",
        .commands = ON(SERVE),
        .group = CLI_GROUP_SERVER,
        FLAG(metrics_public),
    },
    {
        .name = "no-slots",
        .help = "No endpoint /slots, which says what the workers do.",
        .commands = ON(SERVE),
        .group = CLI_GROUP_SERVER,
        FLAG(no_slots),
    },
    {
        .name = "no-web",
        .elsewhere = "no-webui no-ui",
        .help = "Serve no page.",
        .commands = ON(SERVE),
        .group = CLI_GROUP_SERVER,
        FLAG(no_web),
    },
    {
        .name = "web-dir",
        .elsewhere = "path static-dir",
        .argument = "DIR",
        .help = "Serve the page's files from this folder, for those who work on it.",
        .commands = ON(SERVE),
        .group = CLI_GROUP_SERVER,
        FOLDER(web_dir),
        .rules = {EXCLUDES("no-web", "there is no page")},
    },
    {
        .name = "no-model-switch",
        .help = "Clients of AUTOMATIC1111's API can't change the default model.",
        .commands = ON(SERVE),
        .group = CLI_GROUP_SERVER,
        FLAG(no_model_switch),
    },
    {
        .name = "log-format",
        .argument = "KIND",
        .help = "How each line of the log is written.",
        .commands = ON(SERVE),
        .group = CLI_GROUP_SERVER,
        ENUM(log_format, cli_log_format_name),
        .fallback = "text",
    },
    {
        .name = "stage",
        .argument = "KIND",
        .help = "Time only this stage.",
        .commands = ON(BENCH),
        .group = CLI_GROUP_IMAGE,
        ENUM(stage, cli_bench_stage_name),
        .fallback = "all",
    },
    /* ---- files ---- */
    {
        .name = "model",
        .elsewhere = "models model-dir",
        .letter = 'm',
        .argument = "[ID=]DIR",
        .help = "A model folder, or ORGANISATION/NAME of a model that zimage pull has downloaded, and the id by which "
                "requests name it (default: the folder's or the model's own name). Several models each with -m; the "
                "first is the default model (default: the bundled emoji model).",
        .commands = ON(SERVE),
        .group = CLI_GROUP_FILES,
        FILES(models),
    },
    {
        .name = "models-dir",
        .elsewhere = "models-folder model-root",
        .argument = "DIR",
        .help = "A folder of model folders: each is a model, by the name of its folder.",
        .commands = ON(SERVE),
        .group = CLI_GROUP_FILES,
        FOLDER(models_dir),
    },
    {
        .name = "default-model",
        .argument = "ID",
        .help = "The model of requests that name none (default: the first).",
        .commands = ON(SERVE),
        .group = CLI_GROUP_FILES,
        TEXT(default_model),
    },
    {
        .name = "alias",
        .elsewhere = "served-model-name aliases",
        .argument = "NAMES",
        .help = "Further names of models, separated by commas: NAME for the default model, or NAME=ID. Clients of "
                "OpenAI ask for gpt-image-1, for example.",
        .commands = ON(SERVE),
        .group = CLI_GROUP_FILES,
        TEXT(aliases),
    },
    {
        .name = "model",
        .elsewhere = "model-path pretrained-model-name-or-path checkpoint ckpt base-model",
        .letter = 'm',
        .argument = "DIR",
        .help =
            "Model folder in diffusers' layout, or converted for MLX; or ORGANISATION/NAME[@REVISION], a model that "
            "zimage pull has downloaded (default: the bundled emoji model).",
        .commands = ON(GENERATE) | ON(RERUN) | ON(QUEUE) | ON(WORK) | ON(WORDS),
        .group = CLI_GROUP_FILES,
        FOLDER(model),
    },
    {
        .name = "model",
        .letter = 'm',
        .argument = "MODEL",
        .help = "A model folder or one safetensors file.",
        .commands = ON(INSPECT),
        .group = CLI_GROUP_FILES,
        FILE_NAME(model),
        .operand = 1,
    },
    {
        .name = "model",
        .letter = 'm',
        .argument = "DIR",
        .help = "Time the weights of this model folder.",
        .commands = ON(BENCH),
        .group = CLI_GROUP_FILES,
        FOLDER(model),
    },
    {
        .name = "model",
        .letter = 'm',
        .argument = "DIR",
        .help = "A model folder, a tokenizer folder or a tokenizer.json (default: the bundled emoji model).",
        .commands = ON(TOKENIZE),
        .group = CLI_GROUP_FILES,
        FILE_NAME(model),
    },
    {
        .name = "transformer",
        .elsewhere = "diffusion-model unet dit",
        .argument = "DIR",
        .help = "Folder of the transformer, instead of the model's own.",
        .commands = ON(GENERATE) | ON(RERUN) | ON(QUEUE) | ON(WORK),
        .group = CLI_GROUP_FILES,
        FOLDER(transformer),
    },
    {
        .name = "text-encoder",
        .elsewhere = "llm clip qwen",
        .argument = "DIR",
        .help = "Folder of the text encoder, instead of the model's own.",
        .commands = ON(GENERATE) | ON(RERUN) | ON(QUEUE) | ON(WORK),
        .group = CLI_GROUP_FILES,
        FOLDER(text_encoder),
    },
    {
        .name = "vae",
        .argument = "DIR",
        .help = "Folder of the VAE, instead of the model's own.",
        .commands = ON(GENERATE) | ON(RERUN) | ON(QUEUE) | ON(WORK),
        .group = CLI_GROUP_FILES,
        FOLDER(vae),
    },
    {
        .name = "tokenizer",
        .argument = "DIR",
        .help = "Folder of the tokenizer, instead of the model's own.",
        .commands = ON(GENERATE) | ON(RERUN) | ON(QUEUE) | ON(WORK),
        .group = CLI_GROUP_FILES,
        FOLDER(tokenizer),
    },
    {
        .name = "scheduler",
        .argument = "DIR",
        .help = "Folder of the scheduler's configuration, instead of the model's own.",
        .commands = ON(GENERATE) | ON(RERUN) | ON(QUEUE) | ON(WORK),
        .group = CLI_GROUP_FILES,
        FOLDER(scheduler),
    },
    {
        .name = "synthetic",
        .argument = "MODEL",
        .help = "Time random weights in the sizes of z-image-turbo, or of FLUX.2's klein-4b or klein-9b; small and "
                "klein-small are toys. They are made in memory, one network at a time: one random block, repeated at "
                "changing offsets. No file is written.",
        .commands = ON(BENCH),
        .group = CLI_GROUP_FILES,
        TEXT(synthetic),
        .words = "z-image-turbo klein-4b klein-9b small klein-small",
    },
    {
        .name = "format",
        .argument = "F",
        .help = "Format of the random weights: bf16, f16, f32, q4 or q8 (4 or 8 bits in groups of 32).",
        .commands = ON(BENCH),
        .group = CLI_GROUP_FILES,
        TEXT(format),
        .words = "bf16 f16 f32 q4 q8",
        .fallback = "bf16",
        .rules = {NEEDS("synthetic", "a model's weights are in the format of its files")},
    },
    {
        .name = "output",
        .elsewhere = "out output-path output-file image-path out-file",
        .letter = 'o',
        .argument = "FILE",
        .help = "The file to write; one that is there is replaced (default: a new PNG file, named after the prompt and "
                "the seed). The name says the format: .png, .jpg, .jpeg or .webp. -: standard output, as PNG.",
        .commands = ON(GENERATE),
        .group = CLI_GROUP_FILES,
        FILE_NAME(output),
        .written = 1,
        .key = "output",
    },
    {
        .name = "output",
        .letter = 'o',
        .argument = "FILE",
        .help = "Also write the new image to this file; one that is there is replaced. The name says the format: .png, "
                ".jpg, .jpeg or .webp.",
        .commands = ON(RERUN),
        .group = CLI_GROUP_FILES,
        FILE_NAME(output),
        .written = 1,
    },
    {
        .name = "quality",
        .elsewhere = "jpeg-quality jpg-quality webp-quality image-quality",
        .argument = "N",
        .help = "Quality of a JPEG file (default: 95), or of a WebP file (default: lossless).",
        .commands = ON(GENERATE),
        .group = CLI_GROUP_FILES,
        INT(quality, 1, 100),
        .key = "quality",
        .rules = {{CLI_NEEDS, "output", CLI_IS_LOSSY, 0, NULL, "PNG files lose nothing"}},
    },
    {
        .name = "batch",
        .elsewhere = "prompt-file batch-file prompts from-file",
        .argument = "FILE.jsonl",
        .help = "Make the images of each line, a JSON object. The model is opened once, and all lines are checked "
                "before the first image is made. Options on the command line hold for lines that don't say otherwise. "
                "-: standard input.",
        .commands = ON(GENERATE),
        .group = CLI_GROUP_FILES,
        FILE_NAME(batch),
        .rules =
            {
                NEEDS("out-dir", "the folder for its images"),
                EXCLUDES("output", "each line names its own file"),
                EXCLUDES("latents", "it is for one image"),
                EXCLUDES("save-latents", "it is for one image"),
            },
    },
    {
        .name = "out-dir",
        .elsewhere = "output-dir outdir output-folder",
        .argument = "DIR",
        .help = "Folder for the images of a batch; it is created if it does not exist.",
        .commands = ON(GENERATE),
        .group = CLI_GROUP_FILES,
        FOLDER(out_dir),
        .written = 1,
        .rules = {NEEDS("batch", "-o names the file of one image")},
    },
    {
        .name = "resume",
        .elsewhere = "continue skip-existing no-clobber",
        .help =
            "Make only the images of a batch whose files do not exist. Files appear when they are complete, so an "
            "interrupted batch goes on where it was. A line needs an output or a seed: without them the name of its "
            "image differs each time.",
        .commands = ON(GENERATE),
        .group = CLI_GROUP_FILES,
        FLAG(resume),
        .rules = {NEEDS("batch", "it leaves lines out")},
    },
    {
        .name = "shard",
        .elsewhere = "num-shards shard-index rank part",
        .argument = "I/N",
        .help =
            "Make a part of a batch: N processes, each with another I from 0 to N - 1, make each image once. An image "
            "belongs to part I if its key, a hash of all that decides it, is I modulo N. auto: Slurm, Open MPI or PMI "
            "says both numbers; auto/N: they, PMIx or Kubernetes say I. Each line needs a seed. Images without an "
            "output get the names of their keys. What can't be made is listed in failed-I.jsonl.",
        .commands = ON(GENERATE),
        .group = CLI_GROUP_FILES,
        TEXT(shard),
        .words = "auto",
        .rules = {NEEDS("resume", "a part that starts again leaves out what exists")},
    },
    {
        .name = "prompt-embeds",
        .field = "prompt_embeds",
        .argument = "FILE.safetensors",
        .help = "Text features instead of a prompt: the tensor prompt_embeds [tokens, dim].",
        .commands = ON(GENERATE) | ON(RERUN),
        .group = CLI_GROUP_FILES,
        FILE_NAME(prompt_embeds),
        .key = "prompt_embeds",
        .key_needed = 1,
    },
    {
        .name = "latents",
        .argument = "FILE.safetensors",
        .help = "Initial noise instead of a seed: the tensor latents [1, C, H, W].",
        .commands = ON(GENERATE) | ON(RERUN),
        .group = CLI_GROUP_FILES,
        FILE_NAME(latents),
        .key = "latents",
        .rules =
            {
                EXCLUDES("seed", "the file replaces the noise of a seed"),
                EXCLUDES("rng", "the file replaces the noise of a seed"),
                EXCLUDES("image", "an input image needs the noise of a seed"),
                EXCLUDES_ABOVE("count", 1, "all images would be the same"),
            },
    },
    {
        .name = "save-latents",
        .argument = "FILE.safetensors",
        .help = "Also write the final latents [1, C, H, W].",
        .commands = ON(GENERATE),
        .group = CLI_GROUP_FILES,
        FILE_NAME(save_latents),
        .written = 1,
        .key = "save_latents",
        .rules = {EXCLUDES_ABOVE("count", 1, "each image would replace the file of the one before")},
    },
    {
        .name = "no-metadata",
        .help = "Store no text in the image's file: no prompt, no seed, no settings.",
        .commands = ON(GENERATE),
        .group = CLI_GROUP_FILES,
        FLAG(no_metadata),
        .key = "no_metadata",
    },
    {
        .name = "text",
        .argument = "TEXT",
        .help = "The text to split into tokens.",
        .commands = ON(TOKENIZE),
        .group = CLI_GROUP_FILES,
        TEXT(text),
        .operand = 1,
    },
    {
        .name = "text",
        .argument = "TEXT",
        .help = "A word or several, in any case.",
        .commands = ON(WORDS),
        .group = CLI_GROUP_FILES,
        TEXT(text),
        .operand = 1,
    },
    {
        .name = "template",
        .argument = "NAME",
        .help = "Wrap TEXT as the prompts of this model are.",
        .commands = ON(TOKENIZE),
        .group = CLI_GROUP_FILES,
        ENUM(template_kind, cli_template_name),
        .fallback = "none",
    },
    {
        .name = "shell",
        .argument = "SHELL",
        .help = "The shell that the script is for.",
        .commands = ON(COMPLETION),
        .group = CLI_GROUP_FILES,
        ENUM(shell, cli_shell_name),
        .operand = 1,
    },
    {
        .name = "command",
        .argument = "COMMAND",
        .help = "The command to describe.",
        .commands = ON(HELP),
        .group = CLI_GROUP_FILES,
        ENUM(command, cli_command_name),
        .operand = 1,
    },
    {
        .name = "repository",
        .field = "model",
        .elsewhere = "model repo repo-id",
        .argument = "ORGANISATION/NAME",
        .help = "The model, by its name on the hub.",
        .commands = ON(PULL),
        .group = CLI_GROUP_FILES,
        TEXT(repository),
        .words = "Tongyi-MAI/Z-Image-Turbo Tongyi-MAI/Z-Image black-forest-labs/FLUX.2-klein-4B",
        .operand = 1,
    },
    {
        .name = "revision",
        .elsewhere = "branch tag commit",
        .argument = "REVISION",
        .help =
            "A branch, a tag or a commit (default: main; of ModelScope master). -m ORGANISATION/NAME@REVISION opens "
            "it.",
        .commands = ON(PULL),
        .group = CLI_GROUP_FILES,
        TEXT(revision),
    },
    {
        .name = "source",
        .elsewhere = "endpoint mirror hub",
        .argument = "HUB",
        .help =
            "Where the model is: hf (Hugging Face, or what HF_ENDPOINT names), modelscope, or the address of another "
            "hub that speaks Hugging Face's protocol, such as https://hf-mirror.com.",
        .commands = ON(PULL),
        .group = CLI_GROUP_FILES,
        TEXT(source),
        .words = "hf modelscope https://hf-mirror.com",
        .fallback = "hf",
    },
    {
        .name = "include",
        .elsewhere = "allow-patterns files pattern",
        .argument = "PATTERN",
        .help = "Fetch only files whose path matches, such as 'transformer/*'; may be given several times.",
        .commands = ON(PULL),
        .group = CLI_GROUP_FILES,
        FILES(patterns),
    },
    {
        .name = "limit",
        .elsewhere = "limit-rate max-speed bandwidth",
        .argument = "SIZE",
        .help = "Most bytes a second: 5M, 500K, ...",
        .commands = ON(PULL),
        .group = CLI_GROUP_FILES,
        SIZE(limit),
    },
    {
        .name = "connections",
        .elsewhere = "max-workers parallel jobs",
        .argument = "N",
        .help = "Most connections at the same time.",
        .commands = ON(PULL),
        .group = CLI_GROUP_FILES,
        INT(connections, 1, DOWNLOADS_MAX),
        .fallback = "8",
    },
    {
        .name = "segment",
        .elsewhere = "chunk-size part-size",
        .argument = "SIZE",
        .help =
            "Size of the parts in which large files are fetched. After an interruption no more than one part of each "
            "connection is fetched again.",
        .commands = ON(PULL),
        .group = CLI_GROUP_FILES,
        SIZE(segment),
        .fallback = "64M",
    },
    {
        .name = "retries",
        .elsewhere = "max-retries tries",
        .argument = "N",
        .help = "How many requests for a file may fail one after the other. The pauses between them grow to a minute.",
        .commands = ON(PULL),
        .group = CLI_GROUP_FILES,
        INT(retries, 1, RETRIES_MAX),
        .fallback = "8",
    },
    {
        .name = "insecure-http",
        .help = "Allow addresses that begin with http:// also for other machines than this one.",
        .commands = ON(PULL),
        .group = CLI_GROUP_FILES,
        FLAG(insecure_http),
    },
    {
        .name = "suggest",
        .elsewhere = "known recommend",
        .help =
            "Download nothing: list models that are known to work, with their sizes and licences, and the memory and "
            "the seconds that an image of 512 x 512 takes on this machine's CPU, as predicted.",
        .commands = ON(PULL),
        .group = CLI_GROUP_FILES,
        FLAG(suggest),
    },
    {
        .name = "verify",
        .elsewhere = "check",
        .argument = "MODEL",
        .help = "Read the files of this model again, and compare their hashes.",
        .commands = ON(MODELS),
        .group = CLI_GROUP_FILES,
        TEXT(verified),
    },
    {
        .name = "remove",
        .elsewhere = "delete rm",
        .argument = "MODEL",
        .help = "Remove this model from the cache, with all its revisions.",
        .commands = ON(MODELS),
        .group = CLI_GROUP_FILES,
        TEXT(removed),
        .rules = {EXCLUDES("verify", "what is removed can't be verified")},
    },
    {
        .name = "action",
        .argument = "ACTION",
        .help = "What to do with the ledger.",
        .commands = ON(QUEUE),
        .group = CLI_GROUP_FILES,
        ENUM(action, cli_queue_action_name),
        .operand = 1,
    },
    {
        .name = "lines",
        .argument = "FILE.jsonl",
        .help =
            "The jobs that add adds: lines of a batch. Each has a seed. It may name an output, and input images with "
            "--results, but no other files.",
        .commands = ON(QUEUE),
        .group = CLI_GROUP_FILES,
        FILE_NAME(lines),
        .operand = 1,
    },
    {
        .name = "queue",
        .elsewhere = "database db dsn url ledger",
        .argument = "URL",
        .help = "The ledger's database: postgresql://USER@HOST/DATABASE, or what else libpq takes. Other users of this "
                "machine can see it: a password belongs in ZIMAGE_QUEUE, ~/.pgpass or PGPASSWORD.",
        .commands = ON(QUEUE) | ON(WORK),
        .group = CLI_GROUP_FILES,
        TEXT(queue),
    },
    {
        .name = "batch",
        .argument = "NAME",
        .help = "The batch to which jobs are added (default: the file's name without its extension), or whose jobs are "
                "meant.",
        .commands = ON(QUEUE),
        .group = CLI_GROUP_FILES,
        TEXT(queue_batch),
        .rules = {EXCLUDES("id", "an id means one job of any batch")},
    },
    {
        .name = "id",
        .argument = "N",
        .help = "The one job that is meant, by the id that export prints.",
        .commands = ON(QUEUE),
        .group = CLI_GROUP_FILES,
        INT(id, 1, ID_MAX),
    },
    {
        .name = "caller",
        .elsewhere = "user owner",
        .argument = "NAME",
        .help = "Whose jobs these are. Workers take a job of each caller in turn.",
        .commands = ON(QUEUE),
        .group = CLI_GROUP_FILES,
        TEXT(caller),
    },
    {
        .name = "priority",
        .argument = "N",
        .help = "Jobs of a higher priority come first.",
        .commands = ON(QUEUE),
        .group = CLI_GROUP_FILES,
        INT(priority, -PRIORITY_MAX, PRIORITY_MAX),
        .fallback = "0",
    },
    {
        .name = "max-attempts",
        .argument = "N",
        .help = "How many workers may end while they make a job (a crash, for example), until the job fails.",
        .commands = ON(QUEUE),
        .group = CLI_GROUP_FILES,
        INT(max_attempts, 1, ATTEMPTS_MAX),
        .fallback = "5",
    },
    {
        .name = "results",
        .argument = "PLACE",
        .help = "The place of the workers' results (zimage work --out-dir or --pack): a folder, or "
                "s3://BUCKET/PREFIX. add puts the input images of lines there, in inputs/, from where workers read "
                "them.",
        .commands = ON(QUEUE),
        .group = CLI_GROUP_FILES,
        FOLDER(results),
        .written = 1,
    },
    {
        .name = "out-dir",
        .argument = "PLACE",
        .help = "Where images go: a folder, best on a disk that all workers share, or s3://BUCKET/PREFIX of an "
                "S3-compatible store. They get the names ab/cd/KEY.png, or the output that a job names. What is there "
                "already stays. Input images of jobs are read from inputs/ there. The environment has a store's "
                "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and AWS_ENDPOINT_URL.",
        .commands = ON(WORK),
        .group = CLI_GROUP_FILES,
        FOLDER(results),
        .written = 1,
    },
    {
        .name = "pack",
        .elsewhere = "tar shards webdataset",
        .argument = "DIR",
        .help =
            "Write tar files of many images into this folder instead, KEY.png and KEY.json beside each other. "
            "Each 64 images, and whenever no job is queued, they are synced and committed. Input images of jobs are "
            "read from DIR/inputs.",
        .commands = ON(WORK),
        .group = CLI_GROUP_FILES,
        FOLDER(pack),
        .written = 1,
    },
    {
        .name = "claim",
        .argument = "N",
        .help = "How many jobs to take at once.",
        .commands = ON(WORK),
        .group = CLI_GROUP_FILES,
        INT(claim, 1, CLAIMS_MAX),
        .fallback = "2",
    },
    {
        .name = "lease",
        .elsewhere = "timeout visibility-timeout",
        .argument = "SECONDS",
        .help = "A worker that the database has not heard of for so long loses its jobs to others.",
        .commands = ON(WORK),
        .group = CLI_GROUP_FILES,
        FLOAT(lease, 1, LEASE_MAX),
        .fallback = "30",
    },
    {
        .name = "until-empty",
        .elsewhere = "exit-when-done once",
        .help = "End when no job of the model is queued or running.",
        .commands = ON(WORK),
        .group = CLI_GROUP_FILES,
        FLAG(until_empty),
    },
    /* ---- device, memory and speed ---- */
    {
        .name = "device",
        .elsewhere = "gpu backend cuda metal",
        .argument = "KIND",
        .help =
            "Where to compute: cpu, cuda, cuda:K (GPU number K), cuda:K,L (several GPUs for one image), mlx (the GPU "
            "of Apple's chips) or auto: a GPU if zimage devices lists a usable one and no other option asks for the "
            "CPU.",
        .commands = ON(GENERATE) | ON(BENCH) | ON(SERVE) | ON(RERUN) | ON(WORK),
        .group = CLI_GROUP_MACHINE,
        TEXT(device),
        .words = "auto cpu cuda mlx",
        .fallback = "auto",
    },
    {
        .name = "device",
        .argument = "KIND",
        .help = "What to check: cpu, cuda, cuda:K (GPU number K), cuda:K,L (several GPUs) or mlx.",
        .commands = ON(SELFTEST),
        .group = CLI_GROUP_MACHINE,
        TEXT(device),
        .words = "cpu cuda mlx",
        .fallback = "cpu",
    },
    {
        .name = "compute",
        .elsewhere = "dtype torch-dtype precision",
        .argument = "KIND",
        .help = "Compute type of matrix products. On a CPU auto is bf16 where that is clearly faster than f32, else "
                "f32, and fp8 is not available. On a GPU auto is bf16, and int8 is not available.",
        .commands = ON(GENERATE) | ON(BENCH) | ON(SERVE) | ON(RERUN) | ON(WORK),
        .group = CLI_GROUP_MACHINE,
        ENUM(compute, cli_compute_name),
        .fallback = "auto",
    },
    {
        .name = "mem",
        .field = "memory_limit",
        .elsewhere = "max-memory memory-limit ram",
        .argument = "SIZE",
        .help = "Most memory to use: 6G, 512M, ... An image that needs more is refused before work begins. With mlx "
                "it limits the memory that CPU and GPU share.",
        .commands = ON(GENERATE) | ON(RERUN) | ON(WORK),
        .group = CLI_GROUP_MACHINE,
        SIZE(mem),
        .rules = {EXCLUDES_VALUE("device", "cuda", "it limits the memory of the CPU; --vram limits that of a GPU")},
    },
    {
        .name = "vram",
        .field = "device_memory",
        .elsewhere = "max-vram gpu-memory lowvram",
        .argument = "SIZE",
        .help = "Most memory of a GPU to use: 8G, 4096M, ... (default: what is free). Weights that do not fit are "
                "copied to the GPU at each step. A stage that needs more is refused before work begins.",
        .commands = ON(GENERATE) | ON(BENCH) | ON(SERVE) | ON(RERUN) | ON(WORK),
        .group = CLI_GROUP_MACHINE,
        SIZE(vram),
        .rules =
            {
                EXCLUDES("reference", "it limits the memory of a GPU, and the reference computes on the CPU"),
                EXCLUDES("cpu-mask", "it limits the memory of a GPU, and a mask asks for the CPU"),
                EXCLUDES_VALUE("device", "cpu", "it limits the memory of a GPU; --mem limits that of the CPU"),
                EXCLUDES_VALUE("device", "mlx", "it limits a GPU's own memory; --mem limits what CPU and GPU share"),
            },
    },
    {
        .name = "threads",
        .argument = "N",
        .help = "Number of CPU threads (default: one for each core).",
        .commands = ON(GENERATE) | ON(BENCH) | ON(SERVE) | ON(RERUN) | ON(WORK),
        .group = CLI_GROUP_MACHINE,
        INT(threads, 1, THREADS_MAX),
    },
    {
        .name = "cpu-mask",
        .argument = "LIST",
        .help = "Use only these CPU features of those that zimage devices lists: avx2,avx512 for example, or generic "
                "for none.",
        .commands = ON(GENERATE) | ON(BENCH) | ON(DEVICES) | ON(SELFTEST) | ON(SERVE) | ON(RERUN) | ON(WORK),
        .group = CLI_GROUP_MACHINE,
        TEXT(cpu_mask),
        .rules = {EXCLUDES_VALUE("device", "cuda", "a GPU has no such features"),
                  EXCLUDES_VALUE("device", "mlx", "a GPU has no such features")},
    },
    {
        .name = "dequantize",
        .argument = "KIND",
        .help = "Dequantise quantised weights once, when the model is opened, to this type. With none they stay "
                "quantised, and are dequantised where they are used.",
        .commands = ON(GENERATE) | ON(RERUN) | ON(WORK),
        .group = CLI_GROUP_MACHINE,
        ENUM(dequantize, cli_dequantize_name),
        .fallback = "none",
    },
    {
        .name = "reference",
        .help = "Compute with the slow reference backend, plain C on one thread.",
        .commands = ON(GENERATE) | ON(RERUN),
        .group = CLI_GROUP_MACHINE,
        FLAG(reference),
        .rules =
            {
                EXCLUDES("threads", "the reference backend has one thread"),
                EXCLUDES("cpu-mask", "the reference backend uses no such features"),
                EXCLUDES_VALUE("device", "cuda", "the reference backend computes on the CPU"),
                EXCLUDES_VALUE("device", "mlx", "the reference backend computes on the CPU"),
            },
    },
    {
        .name = "plan",
        .elsewhere = "dry-run",
        .help = "Make no image: print the operations, the predicted seconds and the memory of each stage.",
        .commands = ON(GENERATE),
        .group = CLI_GROUP_MACHINE,
        FLAG(plan),
        .rules =
            {
                EXCLUDES("batch", no_image),
                EXCLUDES("output", no_image),
                EXCLUDES("save-latents", no_image),
                EXCLUDES("seed", no_image),
                EXCLUDES("rng", no_image),
                EXCLUDES("no-metadata", no_image),
                EXCLUDES_ABOVE("count", 1, no_image),
            },
    },
    {
        .name = "plan",
        .elsewhere = "dry-run",
        .help = "Download nothing: print the size, what is there already, the free space, the licence, and whether it "
                "has to be accepted.",
        .commands = ON(PULL),
        .group = CLI_GROUP_FILES,
        FLAG(plan),
    },
    {
        .name = "cache-dir",
        .field = "cache_folder",
        .argument = "DIR",
        .help =
            "Folder where measurements of this machine are kept (default: $XDG_CACHE_HOME/zimage or ~/.cache/zimage).",
        .commands = ON(GENERATE) | ON(BENCH) | ON(SERVE) | ON(RERUN) | ON(WORK),
        .group = CLI_GROUP_MACHINE,
        FOLDER(cache_dir),
        .written = 1,
    },
    {
        .name = "no-cache",
        .help = "Keep no measurements of this machine.",
        .commands = ON(GENERATE) | ON(BENCH) | ON(SERVE) | ON(RERUN) | ON(WORK),
        .group = CLI_GROUP_MACHINE,
        FLAG(no_cache),
        .rules = {EXCLUDES("cache-dir", "nothing is kept")},
    },
    /* ---- printing ---- */
    {
        .name = "json",
        .help = "Print one JSON object.",
        .commands = ON(GENERATE) | ON(INSPECT) | ON(BENCH) | ON(DEVICES) | ON(SELFTEST) | ON(TOKENIZE) | ON(EXPLAIN) |
                    ON(RERUN) | ON(MODELS) | ON(QUEUE) | ON(WORK) | ON(WORDS),
        .group = CLI_GROUP_PRINTING,
        FLAG(json),
    },
    {
        .name = "json",
        .help = "Print JSON objects, one on a line, whose \"event\" is plan, progress, file, notice, done or error.",
        .commands = ON(PULL),
        .group = CLI_GROUP_PRINTING,
        FLAG(json),
    },
    {
        .name = "show",
        .elsewhere = "preview display view show-image",
        .argument = "PROTOCOL",
        .help =
            "Show each image in the terminal, and its previews while it is made. auto finds the terminal's protocol by "
            "its environment variables, or asks the terminal. Another word draws without asking, also into a file.",
        .commands = ON(GENERATE) | ON(RERUN),
        .group = CLI_GROUP_PRINTING,
        ENUM(show, cli_show_name),
        .bare = "auto",
        .rules = {EXCLUDES("json", "standard output holds the object"), EXCLUDES("plan", no_image)},
    },
    {
        .name = "quiet",
        .letter = 'q',
        .help = "Print no progress, only results and warnings.",
        .commands = ON(GENERATE) | ON(BENCH) | ON(RERUN) | ON(PULL) | ON(MODELS) | ON(QUEUE) | ON(WORK),
        .group = CLI_GROUP_PRINTING,
        FLAG(quiet),
    },
    {
        .name = "quiet",
        .letter = 'q',
        .help = "Print no line for each request, only what else happens.",
        .commands = ON(SERVE),
        .group = CLI_GROUP_PRINTING,
        FLAG(quiet),
    },
    {
        .name = "verbose",
        .letter = 'v',
        .help =
            "Name each set of kernels before it is checked. If one ends the program, its name is the last one printed.",
        .commands = ON(SELFTEST),
        .group = CLI_GROUP_PRINTING,
        FLAG(verbose),
    },
    {
        .name = "man",
        .help = "Print the manual page, for man(1).",
        .commands = ON(HELP),
        .group = CLI_GROUP_PRINTING,
        FLAG(man),
        .rules = {EXCLUDES("command", "the page describes all of them")},
    },
    {
        .name = "help",
        .letter = 'h',
        .help = "Describe the command and its options.",
        .commands = EVERYWHERE,
        .group = CLI_GROUP_PRINTING,
        FLAG(help),
    },
};

const size_t cli_table_size = sizeof cli_table / sizeof *cli_table;

_Static_assert(sizeof cli_table / sizeof *cli_table <= ROW_SET_ROWS, "cli_options.given has a bit for each option");
