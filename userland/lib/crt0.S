/* The first instructions of every program.
 *
 * The kernel starts sigma0 and the root task with ESP = 0 (ABI 13): they get the stack below, with an empty list
 * of arguments, environment and auxiliary values on it. The root task starts the others with that list on the
 * stack (ABI 14). ECX holds the address of the kernel info page in sigma0 and 0 elsewhere (ABI 2). */
#include <l4/abi.h>

#define BOOT_STACK_BYTES 0x4000

	.section .text.start, "ax"
	.globl _start
	.type _start, @function
_start:
	xorl %ebp, %ebp
	testl %esp, %esp
	jnz 1f
	movl $boot_stack + BOOT_STACK_BYTES - 32, %esp
1:	movl %esp, %eax
	andl $-16, %esp
	subl $8, %esp
	pushl %ecx
	pushl %eax
	call l4_program_start
	ud2
	.size _start, . - _start

	.section .bss.boot_stack, "aw", @nobits
	.balign 16
boot_stack:
	.skip BOOT_STACK_BYTES

	.section .note.GNU-stack, "", @progbits
