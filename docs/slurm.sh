#!/bin/bash
# One kdaug run on several nodes under SLURM:
#
#     sbatch docs/slurm.sh RECIPE DIR [--more.flags ...]
#
# DIR is the run directory, on a file system shared by all nodes. Two minutes before the time limit the run writes a
# checkpoint and the job requeues itself. Started again (also after a preemption, or by hand), the run resumes until it is
# finished.
#SBATCH --job-name=kdaug
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append

# Activate the environment with kdaug here if it is not on PATH:
# source ~/kdaug/.venv/bin/activate

recipe=${1:?usage: sbatch docs/slurm.sh RECIPE DIR} dir=${2:?usage: sbatch docs/slurm.sh RECIPE DIR}
shift 2
first_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

time_is_up=
trap 'time_is_up=yes; kill -TERM $step' TERM # srun forwards the signal to every process
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-} # srun does not inherit this from sbatch

# torchrun starts one process per GPU on every node, and restarts all of them up to three times if one is lost
srun --kill-on-bad-exit=1 torchrun \
    --nnodes "$SLURM_JOB_NUM_NODES" \
    --nproc-per-node "${SLURM_GPUS_ON_NODE:-1}" \
    --rdzv-id "$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}" \
    --rdzv-backend c10d \
    --rdzv-endpoint "$first_node:${PORT:-29500}" \
    --max-restarts 3 \
    -m kdaug train "$recipe" --run.dir "$dir" --run.resume "$@" &
step=$!
wait $step
code=$?

if [ -n "$time_is_up" ]; then
    wait $step # until the checkpoint is written
    scontrol requeue "$SLURM_JOB_ID"
fi
exit $code
