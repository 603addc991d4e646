// The instruction `sdot Vd.4s, Vn.16b, Vm.16b` of Arm's dot product extension for inline assembly,
// operands %0 (the sum), %1 and %2, in code that is compiled for processors without it.
#ifndef RETICLE_BACKENDS_KERNELS_SDOT_H_
#define RETICLE_BACKENDS_KERNELS_SDOT_H_

#if defined(__aarch64__) && defined(__clang__)

// clang's assembler takes no instruction that the function's target lacks, so it is given as a
// number, by symbols that turn the name of a register into its number. Encoding: Arm Architecture
// Reference Manual for A-profile, SDOT (vector).
asm(".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31\n"
    ".equ .Lreticle_v\\n, \\n\n"
    ".endr\n");

#define RETICLE_SDOT ".inst 0x4e809400 | (.Lreticle_%2 << 16) | (.Lreticle_%1 << 5) | .Lreticle_%0"

#elif defined(__aarch64__)

#define RETICLE_SDOT ".arch_extension dotprod\n\tsdot %0.4s, %1.16b, %2.16b"

#endif

#endif  // RETICLE_BACKENDS_KERNELS_SDOT_H_
