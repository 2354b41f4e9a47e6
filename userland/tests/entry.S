/* Threads that look at their own registers. */
#include <l4/abi.h>

#define SLEEP (L4_CAP_INVALID | L4_OP_RECV)

/* Stores the registers it starts with to conf_start_registers: eax ebx ecx edx esi edi ebp esp eflags cs ds es ss fs gs.
 * Then sleeps for ever. */
	.text
	.globl conf_record_registers
	.type conf_record_registers, @function
conf_record_registers:
	movl %eax, conf_start_registers
	movl %ebx, conf_start_registers + 4
	movl %ecx, conf_start_registers + 8
	movl %edx, conf_start_registers + 12
	movl %esi, conf_start_registers + 16
	movl %edi, conf_start_registers + 20
	movl %ebp, conf_start_registers + 24
	movl %esp, conf_start_registers + 28
	pushfl
	popl conf_start_registers + 32
	movl $conf_start_registers + 36, %edi
	movl %cs, %eax
	movl %eax, (%edi)
	movl %ds, %eax
	movl %eax, 4(%edi)
	movl %es, %eax
	movl %eax, 8(%edi)
	movl %ss, %eax
	movl %eax, 12(%edi)
	movl %fs, %eax
	movl %eax, 16(%edi)
	movl %gs, %eax
	movl %eax, 20(%edi)
	jmp conf_sleep
	.size conf_record_registers, . - conf_record_registers

/* Sleeps for ever, using no stack of its own but for the call. */
	.globl conf_sleep
	.type conf_sleep, @function
conf_sleep:
	xorl %eax, %eax
	xorl %ecx, %ecx
	movl $SLEEP, %edx
	movl $L4_SYSTEM_CALL_PAGE, %edi
	call *%edi
	jmp conf_sleep
	.size conf_sleep, . - conf_sleep

/* Thread entries that read from and write to the address in their argument, at a labelled instruction. */
	.globl conf_read_at, conf_read_here
	.type conf_read_at, @function
conf_read_at:
	movl 4(%esp), %eax
conf_read_here:
	movl (%eax), %eax
	jmp conf_sleep
	.size conf_read_at, . - conf_read_at

	.globl conf_write_at, conf_write_here
	.type conf_write_at, @function
conf_write_at:
	movl 4(%esp), %eax
conf_write_here:
	movl $1, (%eax)
	jmp conf_sleep
	.size conf_write_at, . - conf_write_at

/* Thread entries that raise an exception. NAME_here is the EIP that the exception tells. */
.macro raise name
	.globl conf_raise_\name, conf_raise_\name\()_here
	.type conf_raise_\name, @function
conf_raise_\name:
.endm

	raise divide
	xorl %ecx, %ecx
conf_raise_divide_here:
	divl %ecx
	jmp conf_sleep

	raise breakpoint
	int3
conf_raise_breakpoint_here:
	jmp conf_sleep

	raise overflow
	movb $0x7f, %al
	addb $1, %al
conf_raise_overflow_here:
	into
	jmp conf_sleep

	raise bound
	movl $9, %eax
conf_raise_bound_here:
	.byte 0x62, 0x05 /* bound %eax, bounds: assemblers differ about its name */
	.long bounds
	jmp conf_sleep

	raise undefined
conf_raise_undefined_here:
	ud2
	jmp conf_sleep

	raise cli
conf_raise_cli_here:
	cli
	jmp conf_sleep

	raise interrupt
conf_raise_interrupt_here:
	int $0x21
	jmp conf_sleep

	raise port
conf_raise_port_here:
	inb $0x80, %al
	jmp conf_sleep

	raise segment
	movl $0x10, %eax
conf_raise_segment_here:
	movw %ax, %gs
	jmp conf_sleep

	raise far_call
conf_raise_far_call_here:
	lcall $0x08, $0
	jmp conf_sleep

	raise far_jump
conf_raise_far_jump_here:
	ljmp $0x10, $0
	jmp conf_sleep

	raise far_return
	pushl $0x08
	pushl $0
conf_raise_far_return_here:
	lretl
	jmp conf_sleep

	raise stack_segment
	movl $0x08, %eax
conf_raise_stack_segment_here:
	movw %ax, %ss
	jmp conf_sleep

	raise local_call
conf_raise_local_call_here:
	lcall $0x0f, $0
	jmp conf_sleep

	raise step
	pushfl
	orl $0x100, (%esp)
	popfl
	nop
conf_raise_step_here:
	jmp conf_sleep

/* Raises with known registers, and stores those it goes on with. */
	raise with_registers
	movl $0x11111111, %eax
	movl $0x22222222, %ebx
	movl $0x33333333, %ecx
	movl $0x44444444, %edx
	movl $0x55555555, %esi
	movl $0x66666666, %edi
	movl $0x77777777, %ebp
conf_raise_with_registers_here:
	ud2
	movl %eax, conf_registers_after
	movl %ebx, conf_registers_after + 4
	movl %ecx, conf_registers_after + 8
	movl %edx, conf_registers_after + 12
	movl %esi, conf_registers_after + 16
	movl %edi, conf_registers_after + 20
	movl %ebp, conf_registers_after + 24
	jmp conf_sleep

/* An alien thread: see alien.c. */
	.globl conf_alien, conf_alien_behind_call
	.type conf_alien, @function
conf_alien:
	movl %fs:0, %ecx
	movl $L4_SCHEDULER_INFO, (%ecx)
	movl $0, 4(%ecx)
	movl %esp, conf_alien_esp
	movl $(L4_PROTO_SCHEDULER << 16) + 2, %eax
	movl $(L4_BOOT_CAP_SCHEDULER << L4_CAP_SHIFT) | L4_OP_CALL, %edx
	movl $0x1133, %esi
	xorl %ecx, %ecx
	movl $L4_SYSTEM_CALL_PAGE, %edi
	call *%edi
conf_alien_behind_call:
	movl %eax, conf_alien_result
	movl %esi, conf_alien_result + 4
	movl $1, conf_alien_result + 8
1:	jmp 1b
	.size conf_alien, . - conf_alien

/* A page fault trampoline's handler: EAX = block, EDX = fault word, ESP = the interrupted stack. See trampoline.c. */
	.globl conf_tramp_handler
	.type conf_tramp_handler, @function
conf_tramp_handler:
	movl %eax, conf_tramp_seen
	movl %edx, conf_tramp_seen + 4
	movl %esp, conf_tramp_seen + 8
	subl $64, %esp
	pushl %eax
	call conf_tramp_handle
	movl %fs:0, %ecx
	movl conf_tramp_operation, %eax
	movl %eax, (%ecx)
	movl $(L4_PROTO_THREAD << 16) + 1, %eax
	movl $(L4_CAP_INVALID | L4_OP_CALL), %edx
	xorl %ecx, %ecx
	movl $L4_SYSTEM_CALL_PAGE, %edi
	call *%edi
	ud2 /* resume and reflect do not come back */
	.size conf_tramp_handler, . - conf_tramp_handler

	.section .rodata
	.balign 4
bounds:
	.long 0, 8

	.bss
	.balign 4
	.globl conf_alien_result, conf_alien_esp
conf_alien_result:
	.skip 3 * 4
conf_alien_esp:
	.skip 4
	.globl conf_tramp_seen, conf_tramp_operation
conf_tramp_seen:
	.skip 3 * 4
conf_tramp_operation:
	.skip 4
	.globl conf_registers_after
conf_registers_after:
	.skip 7 * 4
	.globl conf_start_registers
conf_start_registers:
	.skip 15 * 4

	.section .note.GNU-stack, "", @progbits
