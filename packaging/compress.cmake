# SPDX-License-Identifier: LGPL-2.1-or-later
# Run by CPack on what is going to be packed: manual pages and changelogs.
file(GLOB_RECURSE files ${CPACK_TEMPORARY_INSTALL_DIRECTORY}/*.[1358]
	${CPACK_TEMPORARY_INSTALL_DIRECTORY}/changelog.Debian)
foreach(file IN LISTS files)
	if(IS_SYMLINK ${file})
		file(READ_SYMLINK ${file} target)
		file(REMOVE ${file})
		file(CREATE_LINK ${target}.gz ${file}.gz SYMBOLIC)
	else()
		execute_process(COMMAND gzip -9n ${file} COMMAND_ERROR_IS_FATAL ANY)
	endif()
endforeach()
