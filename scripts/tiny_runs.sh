# What kill.sh and faults.sh share: a place to work, a recipe that is carried out in a second, and the content of a run folder without
# its times. Sourced by them, from the project's root.

# Every method and two ways to finetune, with the smallest networks; checkpoints after every step.
write_recipe() { # FILE
    local methods='' method settings
    local plan='batch_size = 16, momentum = 0.9, weight_decay = 1e-4, schedule.cosine = {}'
    while read -r method settings; do
        methods+="
[pretrain.\"$method\"]
${settings//;/$'\n'}
plan = { epochs = 3, lr = 0.1, $plan }
"
    done <<'METHODS'
simclr temperature = 0.5
advcl temperature = 0.5; cluster_weight = 0.2; high_frequency_radius = 8.0; attack_steps = 1
rocl temperature = 0.5; attack_steps = 1
acl temperature = 0.5; attack_steps = 1
dynacl temperature = 0.5; period = 1; average_momentum = 0.95; attack_steps = 1
dynacl++ clusters = 3; beta = 6.0; attack_steps = 1; head_plan = { epochs = 2, lr = 0.1, batch_size = 16, momentum = 0.9, weight_decay = 1e-4, schedule.cosine = {} }
advcl+ temperature = 0.5; cluster_weight = 3.0; period = 1; average_momentum = 0.95; attack_steps = 1
deacl attack_steps = 1
supervised
adversarial-training attack_steps = 1
trades beta = 6.0; attack_steps = 1
METHODS
    cat >"$1" <<RECIPE
seed = 3
[checkpoint]
minutes = 0
[compare]
seeds = [3, 4]
[data]
source = "fashion-mnist-12k"
train_limit = 96
test_limit = 20
[encoder]
depth = 10
width = 1
stem = "strided"
[threat]
norm = "linf"
radius = "0.1"
[cluster]
counts = [2, 5]
restarts = 2
iterations = 20
$methods
[finetune.slf]
plan = { epochs = 2, lr = 0.1, $plan }
[finetune.aff]
plan = { epochs = 2, lr = 0.1, $plan }
[evaluate]
split = "test"
batch_size = 10
steps = 2
smoothing = { samples = 20, selection = 5 }
patch = { places = 2, steps = 3 }
RECIPE
}

# Names and contents of all files in a folder, but for times: equal for a run that was never interrupted and for one that was.
# Checkpoints have times inside; the models that come of them have not. Of the log, the epochs, in any order.
content() { # FOLDER
    local file
    (cd "$1" && find . -type f ! -name .lock | LC_ALL=C sort) | while read -r file; do
        case "$file" in
            *times.json | *cluster_time.json | *checkpoint*.safetensors) echo "$file" ;;
            *metrics.jsonl)
                echo "$file $(grep '"event":"epoch"' "$1/$file" |
                    sed -E 's/"(seconds|images_per_second)":[^,}]*,?//g; s/,?"late":(true|false)//' | LC_ALL=C sort | sha256sum)"
                ;;
            *.json)
                # Times are numbers, or objects of numbers.
                echo "$file $(awk '
                    skips {if (index($0, end) == 1) skips = 0; next}
                    /"(seconds|pretrain|finetune|evaluate)": \{$/ {end = $0; sub(/".*/, "}", end); skips = 1; next}
                    !/"(seconds|cluster_seconds|pretrain|finetune|evaluate|checksum)": /' "$1/$file" | sha256sum)"
                ;;
            *comparison.csv) echo "$file $(cut -d, -f1-13 "$1/$file" | sha256sum)" ;;
            *comparison.md) echo "$file $(sed -E 's/[0-9.]+ s \|//g' "$1/$file" | sha256sum)" ;;
            *) echo "$file $(sha256sum <"$1/$file")" ;;
        esac
    done
}

# Goes to a new folder that is removed at the end, with a copy of the program in it: a build meanwhile changes nothing, and two
# campaigns do not meet. In memory where the system has such folders, because every checkpoint waits for its disk.
enter_work_folder() {
    local advcl="${ADVCL:-$PWD/target/release/advcl}"
    [ -x "$advcl" ] || cargo build --release
    if [ -d /dev/shm ] && [ -w /dev/shm ]; then work="$(mktemp -d /dev/shm/advcl-XXXXXX)"; else work="$(mktemp -d)"; fi
    trap 'rm -rf "$work"' EXIT
    cp "$advcl" "$work/advcl"
    cd "$work" || exit
}
