"""The least of each ecosystem that its packages need here: file -> text."""

from __future__ import annotations

ARDUINO = {
    "Arduino.h": """#include <stddef.h>
#include <stdint.h>
struct SerialPort {
    void begin(long) {}
    void print(const char *text);
    void print(long value);
    void print(int value) { print((long)value); }
    void println() { print("\\n"); }
    void println(long value) { print(value); println(); }
};
extern SerialPort Serial;
inline void delay(unsigned long) {}
""",
    "main.cpp": """#include "Arduino.h"
#include <avr/interrupt.h>
#include <avr/io.h>
#include <avr/sleep.h>
#include <stdlib.h>
SerialPort Serial;
void SerialPort::print(const char *text)
{
    for (; *text; text++) {
        while (!(UCSR0A & (1 << UDRE0))) {
        }
        UDR0 = *text;
    }
}
void SerialPort::print(long value)
{
    char text[12];
    print(ltoa(value, text, 10));
}
#include "read_rows.ino"
int main()
{
    UCSR0B = 1 << TXEN0;
    setup();
    for (int k = 0; k < LOOPS; k++) {
        loop();
    }
    cli(); /* asleep without interrupts: the simulator ends */
    sleep_mode();
}
""",
}

ZEPHYR = {
    "ZephyrConfig.cmake": """project(Zephyr-Kernel C)
file(STRINGS ${CMAKE_SOURCE_DIR}/prj.conf options)
foreach(option IN LISTS options)
  string(REGEX MATCH "^(CONFIG_[A-Z0-9_]+)=y$" _ ${option})
  set(${CMAKE_MATCH_1} y)
endforeach()
add_library(zephyr_interface INTERFACE)
target_include_directories(zephyr_interface INTERFACE $ENV{ZEPHYR_BASE}/include)
add_executable(app)
target_link_libraries(app PRIVATE zephyr_interface)
function(zephyr_include_directories folder)
  target_include_directories(zephyr_interface INTERFACE ${CMAKE_CURRENT_SOURCE_DIR}/${folder})
endfunction()
macro(zephyr_library_named name)
  add_library(${name} STATIC)
  set(ZEPHYR_CURRENT_LIBRARY ${name})
  target_link_libraries(${name} PRIVATE zephyr_interface)
  target_link_libraries(app PRIVATE -Wl,--whole-archive ${name} -Wl,--no-whole-archive)
endmacro()
function(zephyr_library_sources file)
  target_sources(${ZEPHYR_CURRENT_LIBRARY} PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/${file})
endfunction()
list(APPEND ZEPHYR_EXTRA_MODULES $ENV{ZEPHYR_EXTRA_MODULES})
list(REMOVE_DUPLICATES ZEPHYR_EXTRA_MODULES)
foreach(module IN LISTS ZEPHYR_EXTRA_MODULES)
  get_filename_component(module ${module} ABSOLUTE)
  get_filename_component(name ${module} NAME)
  add_subdirectory(${module} ${CMAKE_BINARY_DIR}/modules/${name})
endforeach()
""",
    "include/zephyr/sys/printk.h": "#include <stdio.h>\n#define printk printf\n",
}

ESP_IDF = {
    "tools/cmake/project.cmake": """function(idf_component_register)
  cmake_parse_arguments(ARG "" "" "SRCS;INCLUDE_DIRS;REQUIRES" ${ARGN})
  get_filename_component(name ${CMAKE_CURRENT_SOURCE_DIR} NAME)
  list(TRANSFORM ARG_SRCS PREPEND ${CMAKE_CURRENT_SOURCE_DIR}/)
  list(TRANSFORM ARG_INCLUDE_DIRS PREPEND ${CMAKE_CURRENT_SOURCE_DIR}/)
  add_library(${name} STATIC ${ARG_SRCS})
  target_include_directories(${name} PUBLIC ${ARG_INCLUDE_DIRS})
  target_link_libraries(${name} PUBLIC ${ARG_REQUIRES})
endfunction()
macro(project name)
  _project(${name} C)
  add_subdirectory(${EXTRA_COMPONENT_DIRS} component)
  add_subdirectory(main)
  add_executable(firmware $ENV{IDF_PATH}/start.c)
  target_link_libraries(firmware PRIVATE main)
endmacro()
""",
    "start.c": "void app_main(void);\nint main(void)\n{\n    app_main();\n    return 0;\n}\n",
}

MICROPYTHON = {
    "CMakeLists.txt": """cmake_minimum_required(VERSION 3.14)
project(port C)
add_library(usermod INTERFACE)
foreach(module IN LISTS MODULES)
  include(${module})
endforeach()
add_library(firmware STATIC)
target_include_directories(firmware PRIVATE .)
target_link_libraries(firmware PRIVATE usermod)
""",
    "py/obj.h": """#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
typedef void *mp_obj_t;
typedef struct mp_obj_type mp_obj_type_t;
typedef struct { const mp_obj_type_t *type; } mp_obj_base_t;
typedef struct { int unused; } mp_obj_dict_t;
typedef struct { mp_obj_base_t base; size_t len; mp_obj_t items[]; } mp_obj_tuple_t;
typedef struct { mp_obj_base_t base; mp_obj_dict_t *globals; } mp_obj_module_t;
typedef struct { const void *key, *value; } mp_rom_map_elem_t;
typedef struct { void *buf; size_t len; int typecode; } mp_buffer_info_t;
typedef mp_obj_t mp_make_new_t(const mp_obj_type_t *, size_t, size_t, const mp_obj_t *);
struct mp_obj_type { mp_make_new_t *make_new; const mp_obj_dict_t *locals_dict; };
typedef struct { mp_obj_t (*f)(mp_obj_t); } fun_1_t;
typedef struct { mp_obj_t (*f)(mp_obj_t, mp_obj_t); } fun_2_t;
extern const mp_obj_type_t mp_type_module;
extern const mp_obj_t mp_const_none;
#define MP_BUFFER_READ 1
#define MP_TYPE_FLAG_NONE 0
#define MP_ERROR_TEXT(text) text
#define MP_OBJ_TO_PTR(object) (object)
#define MP_OBJ_FROM_PTR(pointer) ((mp_obj_t)(pointer))
#define MP_OBJ_NEW_SMALL_INT(value) ((mp_obj_t)(intptr_t)(value))
#define MP_ROM_QSTR(name) 0
#define MP_ROM_INT(value) ((const void *)(intptr_t)(value))
#define MP_ROM_PTR(pointer) (pointer)
#define MP_DEFINE_CONST_FUN_OBJ_1(name, function) const fun_1_t name = {function}
#define MP_DEFINE_CONST_FUN_OBJ_2(name, function) const fun_2_t name = {function}
#define MP_DEFINE_CONST_DICT(name, table) const mp_obj_dict_t name = {sizeof(table) != 0}
#define MP_DEFINE_CONST_OBJ_TYPE(name, qstr, flags, slot_1, make, slot_2, dict) \\
    const mp_obj_type_t name = {.slot_1 = make, .slot_2 = dict}
#define MP_REGISTER_MODULE(qstr, module) extern const mp_obj_module_t module
void mp_get_buffer_raise(mp_obj_t, mp_buffer_info_t *, int);
bool mp_get_buffer(mp_obj_t, mp_buffer_info_t *, int);
void mp_obj_get_array_fixed_n(mp_obj_t, size_t, mp_obj_t **);
intptr_t mp_obj_get_int(mp_obj_t);
mp_obj_t mp_obj_new_bytes(const unsigned char *, size_t);
void mp_raise_ValueError(const char *);
void mp_arg_check_num(size_t, size_t, size_t, size_t, bool);
mp_obj_t mp_obj_new_tuple(size_t, const mp_obj_t *);
mp_obj_t mp_obj_new_bool(int);
mp_obj_t mp_obj_new_int(intptr_t);
void *mp_allocate(size_t, const mp_obj_type_t *);
#define mp_obj_malloc(structure, type) ((structure *)mp_allocate(sizeof(structure), type))
""",
    "py/runtime.h": "",
}
